"""A command: how many adapters there are of each base."""

from __future__ import annotations

import json
from collections import Counter

import click

from adapterhub.plugins import open_registry


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def census(as_json: bool) -> None:
    """Count the adapters of each base."""
    counts = Counter(listed.base or "unknown" for listed in open_registry().listing())
    if as_json:
        click.echo(json.dumps(counts))
        return
    for base, count in sorted(counts.items()):
        click.echo(f"{base}  {count}")
