"""What happened to a name, and how much happened in all."""

from __future__ import annotations

import json
import sqlite3

from adapterhub.protocols import LogEntry
from adapterhub_registry import lookup, splits

_SHOWN = ("commit", "pull", "tag", "split", "untag", "rollback", "remove", "restore", "collect")


def log(connection: sqlite3.Connection, name: str) -> list[LogEntry]:
    """The whole history of a name, oldest first."""
    lookup.require_name(connection, name)
    rows = connection.execute("SELECT * FROM events WHERE name = ? ORDER BY seq", (name,))
    return [_entry(row) for row in rows if row["action"] in _SHOWN]


def revision(connection: sqlite3.Connection) -> int:
    """The number of the last event."""
    return int(connection.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0])


def _entry(row: sqlite3.Row) -> LogEntry:
    body = json.loads(row["body"])
    return LogEntry(
        row["time"], row["actor"], row["action"], row["name"],
        row["version"], row["alias"], row["previous"], body.get("source"),
        splits.from_body(body, "weights"), splits.from_body(body, "ended"),
    )  # fmt: skip
