"""Removing versions and bringing them back. Their files stay until `collect` deletes them."""

from __future__ import annotations

import json
import sqlite3

from adapterhub.errors import AdzError, usage_error
from adapterhub.reference import Reference, parse_reference
from adapterhub_registry import aliases, lookup, quotas, splits
from adapterhub_registry.database import Change
from adapterhub_registry.storage import Storage


def remove(change: Change, reference: str) -> list[sqlite3.Row]:
    """Remove one version, or every version of a name; return their rows as they were."""
    found = lookup.find(change.connection, parse_reference(reference))
    name = found["name"]
    if "@" not in reference:
        removed = lookup.live_versions(change.connection, name)
        for alias in lookup.aliases_of(change.connection, name):
            aliases.drop(change, name, alias)
    else:
        if found["aliases"]:
            _refuse_alias(found)
        parts = splits.having(change.connection, name, found["number"])
        if parts:
            _refuse_part(change.connection, found, parts[0])
        removed = [found]
    for row in removed:
        change.record("remove", name, version=row["number"])
    return removed


def restore(change: Change, storage: Storage, reference: str) -> list[sqlite3.Row]:
    """Bring back one version, or every removed version of a name with the aliases that were
    removed with it; return their rows."""
    parsed = parse_reference(reference)
    rows = _removed(change.connection, parsed, whole_name="@" not in reference)
    for row in rows:
        missing = _missing_blob(change.connection, storage, row["digest"])
        if missing:
            raise AdzError(
                f"{row['name']}@{row['number']} cannot be restored: its file {missing[:19]} "
                "is not there any more",
                "pull it again, if it was pushed",
            )
    size = sum(row["size"] for row in rows)
    quotas.check(change.connection, storage.home, parsed.name, versions=len(rows), size=size)
    for row in rows:
        change.record("restore", parsed.name, version=row["number"])
    if "@" not in reference:
        for alias, number, weights in _aliases_removed_with(change.connection, rows):
            if weights:
                aliases.split(change, parsed.name, alias, weights)
            else:
                aliases.tag(change, f"{parsed.name}@{number}", alias)
    numbers = {row["number"] for row in rows}
    live = lookup.live_versions(change.connection, parsed.name)
    return [row for row in live if row["number"] in numbers]


def _removed(
    connection: sqlite3.Connection, parsed: Reference, *, whole_name: bool
) -> list[sqlite3.Row]:
    if not whole_name:
        row = lookup.find_any(connection, parsed)
        if row["state"] == "live":
            raise usage_error(f"{parsed} is not removed")
        if row["state"] != "removed":
            raise lookup.not_there(connection, parsed, row["state"])
        return [row]
    lookup.require_name(connection, parsed.name)
    rows = lookup.versions_in(connection, parsed.name, "removed")
    if not rows:
        raise usage_error(
            f"no version of {parsed.name} can be restored", f"see 'adz log {parsed.name}'"
        )
    return rows


def _missing_blob(connection: sqlite3.Connection, storage: Storage, digest: str) -> str | None:
    for row in connection.execute("SELECT blob FROM needs WHERE digest = ?", (digest,)):
        if not storage.blobs.path(row["blob"]).is_file():
            return str(row["blob"])
    return None


def _aliases_removed_with(
    connection: sqlite3.Connection, rows: list[sqlite3.Row]
) -> list[tuple[str, int, dict[int, int]]]:
    """The aliases whose last event is their removal in the same change as that of the rows:
    where each pointed, with its weights where it was split."""
    name, ended = rows[0]["name"], {row["number"]: row["ended"] for row in rows}
    query = """
        SELECT e.alias, e.previous, e.time, e.body FROM events e
        JOIN (SELECT alias, max(seq) AS seq FROM events
              WHERE name = ? AND alias IS NOT NULL GROUP BY alias) last ON last.seq = e.seq
        WHERE e.action = 'untag' ORDER BY e.alias
    """
    return [
        (row["alias"], row["previous"], splits.from_body(json.loads(row["body"]), "ended"))
        for row in connection.execute(query, (name,))
        if ended.get(row["previous"]) == row["time"]
    ]


def _refuse_alias(row: sqlite3.Row) -> None:
    name, aliases = row["name"], sorted(row["aliases"].split())
    raise usage_error(
        f"{name}@{row['number']} is {', '.join(aliases)}",
        f"first move the alias: adz tag {name}@N {aliases[0]}, or remove "
        f"it: adz tag --delete {name}@{aliases[0]}",
    )


def _refuse_part(connection: sqlite3.Connection, row: sqlite3.Row, alias: str) -> None:
    name = row["name"]
    heaviest = lookup.alias_target(connection, name, alias)
    raise AdzError(
        f"{name}@{row['number']} is a part of {name}@{alias}",
        f"first end the split: adz tag {name}@{heaviest} {alias}",
    )
