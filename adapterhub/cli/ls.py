"""`adz ls`: the adapters in the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import (
    TerminalProgress,
    format_size,
    format_table,
    format_weights,
    json_option,
    print_result,
)

if TYPE_CHECKING:
    from typing import Literal

    from adapterhub.protocols import Listing

    Scope = Literal["latest", "live", "removed"]
    Splits = Mapping[str, Mapping[int, int]]

_HEADER = ("name", "versions", "latest", "aliases", "method", "rank", "base", "size", "made by")
_VERSION_HEADER = ("version", "aliases", "method", "rank", "base", "size", "made by", "created")


@click.command(short_help="List the adapters.")
@click.option("--name", help="Only names like this, such as 'team/*'.")
@click.option("--base", help="Only adapters of this base.")
@click.option("--method", help="Only adapters of this method.")
@click.option("--rule", help="Only merges by this rule.")
@click.option("--alias", help="Only adapters that have this alias.")
@click.option(
    "--metric",
    help="Only adapters with this figure, such as 'exact_match>=0.8', or 'exact_match:sql>=0.8'.",
)
@click.option(
    "--sort",
    type=click.Choice(["name", "created", "size", "rank", "metric"]),
    default="name",
    show_default=True,
    help="What to sort by.",
)
@click.option("--reverse", is_flag=True, help="The last first.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many lines.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out so many lines.")
@click.option("--all-versions", is_flag=True, help="Every version, not only the latest.")
@click.option("--removed", is_flag=True, help="What 'adz restore' can bring back.")
@click.option(
    "--remote",
    metavar="URL",
    help="What is there, such as oci://host/path, hub://organisation or ./folder.",
)
@json_option
def command(
    all_versions: bool, removed: bool, remote: str | None, as_json: bool, **query: Any
) -> None:
    """List the adapters, each with the facts of its latest version.

    With --remote those that 'adz pull' would find there, before anything is fetched. A registry
    that does not list its repositories still lists one: --name sql.
    """
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry

    if all_versions and removed:
        raise usage_error("--all-versions and --removed exclude each other")
    scope: Scope = "removed" if removed else "live" if all_versions else "latest"
    if remote is None:
        registry = open_registry()
        found, splits = registry.listing(scope=scope, **query), registry.splits()
    else:
        # A remote knows no splits.
        found, splits = _at_remote(remote, scope, query), {}
    if not found:
        click.echo(_nothing(query, remote, removed=removed), err=True)
    table = _versions if all_versions or removed else _adapters
    text = table(found, splits, removed=removed)
    value = [asdict(entry) | {"splits": _splits(entry, splits)} for entry in found]
    print_result(value, text if found else "", as_json=as_json)


def _at_remote(url: str, scope: Scope, query: dict[str, Any]) -> list[Listing]:
    from adapterhub.errors import usage_error
    from adapterhub.exchange.listing import list_remote
    from adapterhub.exchange.remotes import open_remote

    if scope == "removed" or query.pop("metric") or query["sort"] == "metric":
        raise usage_error(
            "--removed and --metric are known of this registry only", "leave out --remote"
        )
    return list_remote(open_remote(url), TerminalProgress(), every=scope == "live", **query)


def _adapters(found: list[Listing], splits: Splits, *, removed: bool) -> str:
    header, scored = list(_HEADER), any(entry.score is not None for entry in found)
    rows = [
        [e.name, e.versions, e.version, _aliases(e, splits), *_facts(e), *([e.score] * scored)]
        for e in found
    ]
    return format_table(header + ["metric"] * scored, rows)


def _versions(found: list[Listing], splits: Splits, *, removed: bool) -> str:
    scored = any(entry.score is not None for entry in found)
    rows = [
        [
            f"{e.name}@{e.version}",
            " ".join(_aliases_of_version(e, splits)),
            *_facts(e),
            _time(e.created),
            *([_time(e.removed or "")] * removed),
            *([e.score] * scored),
        ]
        for e in found
    ]
    return format_table([*_VERSION_HEADER, *["removed"] * removed, *["metric"] * scored], rows)


def _facts(entry: Listing) -> list[object]:
    rank = "" if entry.rank is None else entry.rank
    how = f"{entry.made_by} ({entry.rule})" if entry.rule else entry.made_by
    return [entry.method, rank, entry.base or "unknown", format_size(entry.size), how]


def _aliases(entry: Listing, splits: Splits) -> str:
    split = _splits(entry, splits)
    return " ".join(
        f"{alias}@{format_weights(split[alias]) if alias in split else number}"
        for alias, number in entry.aliases.items()
    )


def _aliases_of_version(entry: Listing, splits: Splits) -> Iterator[str]:
    """An alias that is split is that of each of its versions, with its weight."""
    split = _splits(entry, splits)
    for alias, number in entry.aliases.items():
        if alias not in split and number == entry.version:
            yield alias
        elif entry.version in split.get(alias, {}):
            yield f"{alias}:{split[alias][entry.version]}"


def _splits(entry: Listing, splits: Splits) -> dict[str, Mapping[int, int]]:
    """alias -> version -> weight, of the entry's name."""
    names = {alias: f"{entry.name}@{alias}" for alias in entry.aliases}
    return {alias: splits[name] for alias, name in names.items() if name in splits}


def _time(time: str) -> str:
    return time[:19].replace("T", " ")


def _nothing(query: Mapping[str, Any], remote: str | None, *, removed: bool) -> str:
    filters = ("name", "base", "method", "rule", "alias", "metric", "offset")
    if any(query.get(name) for name in filters):
        return "no adapter matches"
    if remote is not None:
        return f"{remote} holds no adapter: is the address right?"
    return "nothing was removed" if removed else "no adapter yet: see 'adz train --help'"
