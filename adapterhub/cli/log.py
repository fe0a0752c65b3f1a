"""`adz log`: the history of a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import format_table, format_weights, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.protocols import LogEntry


@click.command(short_help="Show the history of an adapter.")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show what happened to NAME, oldest first: commits, moves of aliases, removals."""
    from adapterhub.plugins import open_registry

    entries = open_registry().log(name)
    rows = [(_time(e.time), e.actor, e.action, _what(e)) for e in entries]
    text = format_table(("time", "who", "action", "what"), rows)
    print_result([asdict(entry) for entry in entries], text, as_json=as_json)


def _time(time: str) -> str:
    return time[:19].replace("T", " ")


def _what(entry: LogEntry) -> str:
    if entry.alias is None:
        origin = f" from {entry.source}" if entry.source else ""
        return f"{entry.name}@{entry.version}{origin}"
    before, after = _target(entry.previous, entry.ended), _target(entry.version, entry.weights)
    return f"{entry.name}@{entry.alias}: {before + ' ' if before else ''}-> {after or 'removed'}"


def _target(number: int | None, weights: Mapping[int, int]) -> str:
    return format_weights(weights) or ("" if number is None else str(number))
