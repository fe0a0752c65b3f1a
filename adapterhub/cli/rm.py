"""`adz rm`: remove versions."""

from __future__ import annotations

import sys

import click

from adapterhub.cli.output import json_option, print_result


@click.command(short_help="Remove a version, or all of an adapter.")
@click.argument("reference")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(reference: str, yes: bool, as_json: bool) -> None:
    """Remove the version REFERENCE, or every version where it is a name alone.

    Numbers are never used again and the history stays. 'adz restore' brings back what was
    removed, until 'adz gc' deletes its files: a week later by default.
    """
    from adapterhub.errors import AdzError, usage_error
    from adapterhub.plugins import open_registry

    registry = open_registry()
    version = registry.resolve(reference)
    gone: list[str] = []
    if "@" in reference:
        what = version.reference
    else:
        versions = registry.versions(version.name)
        gone = sorted(alias for one in versions for alias in one.aliases)
        what = f"{version.name} (versions: {len(versions)})"
    if not yes:
        if not sys.stdin.isatty():
            raise usage_error(f"removing {what} needs --yes where nobody can be asked")
        if not click.confirm(f"Remove {what}?", err=True):
            raise AdzError("nothing was removed")
    removed = [version.reference for version in registry.remove(reference)]
    text = f"removed {', '.join(removed)}"
    text += f", and with them the aliases {', '.join(gone)}" if gone else ""
    print_result({"removed": removed, "aliases": gone}, text, as_json=as_json)
