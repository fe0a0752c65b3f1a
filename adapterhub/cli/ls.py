"""`adz ls`: the adapters in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import click

from adapterhub.cli.output import format_size, format_table, json_option, print_result

_HEADER = ("name", "versions", "latest", "aliases", "method", "rank", "base", "size", "made by")


@click.command(short_help="List the adapters.")
@click.option("--base", help="Only adapters of this base.")
@click.option("--method", help="Only adapters of this method.")
@click.option("--alias", help="Only adapters that have this alias.")
@json_option
def command(base: str | None, method: str | None, alias: str | None, as_json: bool) -> None:
    """List the adapters, each with the facts of its latest version."""
    from adapterhub.plugins import open_registry

    found = open_registry().listing(base=base, method=method, alias=alias)
    if not found:
        filtered = base or method or alias
        hint = "no adapter matches" if filtered else "no adapter yet: see 'adz train --help'"
        click.echo(hint, err=True)
    rows = [
        (
            entry.name,
            entry.versions,
            entry.latest,
            _aliases(entry.aliases),
            entry.method,
            "" if entry.rank is None else entry.rank,
            entry.base or "unknown",
            format_size(entry.size),
            entry.made_by,
        )
        for entry in found
    ]
    text = format_table(_HEADER, rows) if rows else ""
    print_result([asdict(entry) for entry in found], text, as_json=as_json)


def _aliases(aliases: Mapping[str, int]) -> str:
    return " ".join(f"{alias}@{number}" for alias, number in aliases.items())
