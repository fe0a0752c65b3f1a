"""`adz gc`: free the space of what is no longer needed."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import format_size, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.protocols import CollectReport, Lease

_DAY = 86400
_REASONS = {
    "restorable": "removed versions that 'adz restore' can bring back",
    "leased": "removed versions that are leased",
    "young": "files within the grace period",
    "in flight": "folders that a running command fills",
}


@click.command(short_help="Free the space of removed versions.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--retention-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Keep the files of versions that were removed less than so many days ago.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=3600.0,
    show_default=True,
    help="Keep files that were made less than this many seconds ago.",
)
@json_option
def command(dry_run: bool, retention_days: float, grace: float, as_json: bool) -> None:
    """Delete the files of removed versions, and what killed commands left.

    What is leased stays: a server and a running push need it. A download that broke off is kept
    for a week, so that it can go on.
    """
    from adapterhub.exchange.partial import sweep as sweep_partial
    from adapterhub.plugins import open_registry
    from adapterhub.staging import home_staging, sweep

    registry = open_registry()
    report = registry.collect(
        dry_run=dry_run, grace_seconds=grace, retention_seconds=retention_days * _DAY
    )
    unfinished = sweep(home_staging(), grace_seconds=grace, dry_run=dry_run)
    unfinished += sweep_partial(dry_run=dry_run)
    report = replace(report, size=report.size + unfinished)
    leases = registry.leases()
    value = {**asdict(report), "leases": [asdict(lease) for lease in leases]}
    print_result(value, _text(report, leases, dry_run=dry_run), as_json=as_json)


def _text(report: CollectReport, leases: list[Lease], *, dry_run: bool) -> str:
    verb = "would free" if dry_run else "freed"
    lines = [
        f"{verb} {format_size(report.size)}: removed versions {report.versions}, "
        f"files {report.blobs}, views {report.views}"
    ]
    lines += [f"kept {report.kept[key]} {why}" for key, why in _REASONS.items() if report.kept[key]]
    lines += [
        f"{lease.version} is leased by {lease.holder} until {lease.until}" for lease in leases
    ]
    return "\n".join(lines)
