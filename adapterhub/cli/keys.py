"""`adz keys`: who may use a server."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, format_table, json_option, print_result

if TYPE_CHECKING:
    from datetime import datetime

    from adapterhub.serve.doors.keys import Key


@click.group(short_help="Make, list and remove the keys of servers.")
def command() -> None:
    """Make, list and remove the keys that open a server (see adz serve).

    Of a key only its SHA-256 is stored, in $ADZ_HOME/keys.yaml. A running server follows
    every change.
    """


@command.command("new", short_help="Make a key.")
@click.argument("name")
@click.option(
    "--models",
    multiple=True,
    metavar="PATTERN",
    default=("*",),
    show_default=True,
    help="Names of bases and adapters that it opens, such as 'team/*'; may be repeated.",
)
@click.option("--requests-per-minute", type=click.IntRange(1), help="Requests in any 60 seconds.")
@click.option("--concurrent", type=click.IntRange(1), help="Requests at once.")
@click.option("--days", type=click.IntRange(1), help="Days until it expires.")
@json_option
def new(
    name: str,
    models: tuple[str, ...],
    requests_per_minute: int | None,
    concurrent: int | None,
    days: int | None,
    as_json: bool,
) -> None:
    """Make a key called NAME and print it, this once: keep it."""
    from adapterhub.serve.doors.keys import new_key

    key, text = new_key(
        name,
        models=models,
        requests_per_minute=requests_per_minute,
        concurrent=concurrent,
        days=days,
    )
    TerminalProgress().note(f"the key {name} is shown this once: keep it")
    print_result({**_shown(key), "key": text}, text, as_json=as_json)


@command.command("ls", short_help="List the keys.")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys, without what opens a server."""
    from adapterhub.serve.doors.keys import read_keys

    keys = read_keys()
    header = ("NAME", "MODELS", "REQUESTS/MIN", "AT ONCE", "CREATED", "EXPIRES")
    table = format_table(header, [_row(key) for key in keys]) if keys else ""
    print_result([_shown(key) for key in keys], table, as_json=as_json)


@command.command("rm", short_help="Remove keys.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def remove(names: tuple[str, ...], as_json: bool) -> None:
    """Remove keys. A running server refuses them from its next request on."""
    from adapterhub.serve.doors.keys import remove_keys

    remove_keys(names)
    print_result({"removed": names}, f"removed {', '.join(names)}", as_json=as_json)


def _row(key: Key) -> tuple[object, ...]:
    expires = _day(key.expires) + (" (over)" if key.has_expired() else "")
    return (
        key.name,
        ", ".join(key.models),
        key.requests_per_minute or "-",
        key.concurrent or "-",
        _day(key.created),
        expires,
    )


def _day(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d") if moment else "-"


def _shown(key: Key) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"sha256"})
