"""`adz push`: versions to a remote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, format_size, json_option, print_each

if TYPE_CHECKING:
    from adapterhub.exchange.result import Transferred


@click.command(short_help="Copy versions to a remote.")
@click.argument("references", nargs=-1, required=True, metavar="REF...")
@click.option(
    "--to",
    "url",
    required=True,
    metavar="URL",
    help="Such as oci://host/path, hub://organisation, s3://bucket/path or ./folder.",
)
@click.option("--all", "every", is_flag=True, help="Every version and alias of these names.")
@click.option(
    "--sign",
    "key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="KEY",
    help="Sign with this private key, a PEM file of an elliptic curve.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def command(
    references: tuple[str, ...],
    url: str,
    every: bool,
    key: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy versions to a remote, under their names, numbers and digests.

    REF is 'sql' (the latest), 'sql@7', or 'sql@prod', which sets the alias there too. Files that
    are there already are not sent again, and a version can be found there only when it is whole.
    """
    from adapterhub.exchange.push import push
    from adapterhub.exchange.remotes import open_remote
    from adapterhub.plugins import open_registry

    registry, progress = open_registry(), TerminalProgress()
    remote = open_remote(url)
    results = push(registry, remote, references, progress, every=every, key=key, dry_run=dry_run)
    print_each(results, _describe, as_json=as_json)


def _describe(result: Transferred) -> str:
    text = f"{result.reference}  {result.action}, {format_size(result.size)}"
    if result.action in ("pushed", "would push") and result.sent < result.size:
        text += f", {format_size(result.sent)} of it sent"
    notes = [*result.aliases, *([result.signature] if result.signature else [])]
    return text + (f"  ({', '.join(notes)})" if notes else "")
