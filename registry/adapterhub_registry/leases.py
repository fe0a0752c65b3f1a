"""Who needs which version until when. Leases live in the database only: a rebuild forgets them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from adapterhub.errors import usage_error
from adapterhub.manifest import Version
from adapterhub.protocols import Lease
from adapterhub_registry import lookup
from adapterhub_registry.database import utc_now, utc_text


def take(
    connection: sqlite3.Connection, versions: Sequence[Version], holder: str, seconds: float
) -> None:
    """Replace what `holder` held by these versions, for `seconds` from now.

    A removed version can be held; one whose files were deleted cannot (a usage error).
    """
    if not holder:
        raise usage_error("a lease needs the name of its holder")
    for version in versions:
        lookup.require_files(connection, version)
    now, until = utc_now(), utc_text(time.time() + seconds)
    connection.execute("DELETE FROM leases WHERE holder = ? OR until <= ?", (holder, now))
    connection.executemany(
        "INSERT INTO leases VALUES (?, ?, ?)",
        [(holder, digest, until) for digest in sorted({v.digest for v in versions})],
    )


def read(connection: sqlite3.Connection) -> list[Lease]:
    """The leases that have not run out, by holder and version."""
    rows = connection.execute(
        "SELECT l.holder, v.name, v.number, l.until FROM leases l"
        " JOIN versions v ON v.digest = l.digest WHERE l.until > ?"
        " ORDER BY l.holder, v.name, v.number",
        (utc_now(),),
    )
    return [Lease(r["holder"], f"{r['name']}@{r['number']}", r["until"]) for r in rows]
