"""`adz pull`: versions from a remote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, format_size, json_option, print_each

if TYPE_CHECKING:
    from adapterhub.exchange.result import Transferred


@click.command(short_help="Store versions from a remote.")
@click.argument("references", nargs=-1, required=True, metavar="REF...")
@click.option(
    "--from",
    "url",
    required=True,
    metavar="URL",
    help="Such as oci://host/path, hub://organisation, s3://bucket/path or ./folder.",
)
@click.option("--as", "rename", metavar="NAME", help="Store it as the next version of this name.")
@click.option("--all", "every", is_flag=True, help="Every version and alias of these names.")
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="A public key that must have signed; may be given several times, one is enough.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=4 << 30,
    show_default=True,
    help="Refuse a version whose files are larger together.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would come.")
@json_option
def command(
    references: tuple[str, ...],
    url: str,
    rename: str | None,
    every: bool,
    keys: tuple[Path, ...],
    max_bytes: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Store versions from a remote, under their own names, numbers and digests.

    REF is 'sql' (its highest number there), 'sql@7', or 'sql@prod', which sets the alias here
    too. Everything is verified while it comes, and nothing is visible before it is whole. A
    download that broke off goes on where it stopped.
    """
    from adapterhub.exchange.bounds import Bounds
    from adapterhub.exchange.pull import pull
    from adapterhub.exchange.remotes import open_remote
    from adapterhub.plugins import open_registry

    results = pull(
        open_registry(),
        open_remote(url),
        references,
        TerminalProgress(),
        every=every,
        rename=rename,
        keys=keys,
        dry_run=dry_run,
        bounds=Bounds(version_bytes=max_bytes),
    )
    print_each(results, _describe, as_json=as_json)


def _describe(result: Transferred) -> str:
    name = result.reference + (f" <- {result.source}" if result.source else "")
    text = f"{name}  {result.action}, {format_size(result.size)}"
    if result.action == "pulled" and result.sent < result.size:
        text += f", {format_size(result.sent)} of it read"
    text += f"  ({', '.join(result.aliases)})" if result.aliases else ""
    notes = [note for note in (result.signature, result.base) if note]
    return "\n  ".join([text, *notes])
