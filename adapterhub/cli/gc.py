"""`adz gc`: free the space of what is no longer needed."""

from __future__ import annotations

from dataclasses import asdict, replace

import click

from adapterhub.cli.output import format_size, json_option, print_result


@click.command(short_help="Free the space of removed versions.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=3600.0,
    show_default=True,
    help="Keep what was made or removed less than this many seconds ago.",
)
@json_option
def command(dry_run: bool, grace: float, as_json: bool) -> None:
    """Delete the files that no live version needs, and what killed commands left.

    A download that broke off is kept for a week, so that it can go on.
    """
    from adapterhub.exchange.partial import sweep as sweep_partial
    from adapterhub.plugins import open_registry
    from adapterhub.staging import home_staging, sweep

    report = open_registry().collect(dry_run=dry_run, grace_seconds=grace)
    unfinished = sweep(home_staging(), grace_seconds=grace, dry_run=dry_run)
    unfinished += sweep_partial(dry_run=dry_run)
    report = replace(report, size=report.size + unfinished)
    verb = "would free" if dry_run else "freed"
    text = f"{verb} {format_size(report.size)}: files {report.blobs}, views {report.views}"
    kept = ", ".join(f"{count} {why}" for why, count in report.kept.items() if count)
    text += f"; kept {kept}" if kept else ""
    print_result(asdict(report), text, as_json=as_json)
