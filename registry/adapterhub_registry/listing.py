"""One line for each adapter, from the index alone: no manifest is read."""

from __future__ import annotations

import sqlite3

from adapterhub.errors import unknown_name
from adapterhub.protocols import Listing
from adapterhub_registry import lookup

_LATEST = """
    SELECT v.*, c.versions FROM versions v JOIN (
        SELECT name, max(number) AS latest, count(*) AS versions FROM versions
        WHERE state = 'live' GROUP BY name
    ) c ON c.name = v.name AND c.latest = v.number
"""


def listing(
    connection: sqlite3.Connection, *, base: str | None, method: str | None, alias: str | None
) -> list[Listing]:
    """Names by what their latest version is; `base` matches by weights, then by recorded name."""
    wanted: dict[str, str] = {}
    if base is not None:
        _require_base(connection, base)
        wanted["(v.weights = (SELECT weights FROM bases WHERE name = :base) OR v.base = :base)"] = (
            base
        )
    if method is not None:
        wanted["v.method = :method"] = method
    if alias is not None:
        wanted["v.name IN (SELECT name FROM aliases WHERE alias = :alias)"] = alias
    where = " WHERE " + " AND ".join(wanted) if wanted else ""
    arguments = {"base": base, "method": method, "alias": alias}
    rows = connection.execute(f"{_LATEST}{where} ORDER BY v.name", arguments).fetchall()
    aliases = _aliases(connection)
    return [
        Listing(
            name=row["name"],
            versions=row["versions"],
            latest=row["number"],
            aliases=aliases.get(row["name"], {}),
            method=row["method"],
            rank=row["rank"],
            base=row["base"],
            size=row["size"],
            made_by=row["made_by"],
            created=row["created"],
        )
        for row in rows
    ]


def _aliases(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute("SELECT name, alias, number FROM aliases ORDER BY name, alias"):
        found.setdefault(row["name"], {})[row["alias"]] = row["number"]
    return found


def _require_base(connection: sqlite3.Connection, base: str) -> None:
    if lookup.is_base(connection, base):
        return
    known = {row["name"] for row in connection.execute("SELECT name FROM bases")}
    known |= {
        row["base"]
        for row in connection.execute("SELECT DISTINCT base FROM versions WHERE base NOT NULL")
    }
    if base not in known:
        raise unknown_name("base", base, known)
