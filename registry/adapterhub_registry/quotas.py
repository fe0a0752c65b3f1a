"""How much a name may hold, by the policy of this home; counted inside the write transaction."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from adapterhub.errors import AdzError


def check(
    connection: sqlite3.Connection, home: Path, name: str, *, versions: int, size: int
) -> None:
    """Refuse (AdzError) what would bring the live versions of `name` over its quota.

    home: where `policy.yaml` stands. versions, size: how many are about to be added, and the
    bytes of their payloads.
    """
    # Imported late: `adz ls` must not pay for it.
    from adapterhub.policy import load_policy

    quota = load_policy(home).quota_of(name)
    if quota is None:
        return
    row = connection.execute(
        "SELECT versions, size FROM adapters WHERE name = ?", (name,)
    ).fetchone()
    held, used = (row["versions"], row["size"]) if row else (0, 0)
    if quota.versions is not None and held + versions > quota.versions:
        over = f"{quota.versions} versions, and {held} are live"
    elif quota.size is not None and used + size > quota.size:
        over = f"{quota.size} bytes: {used} are used, {size} more are needed"
    else:
        return
    oldest = _oldest(connection, name)
    hint = f"remove what is not needed, such as 'adz rm {oldest}', or raise" if oldest else "raise"
    raise AdzError(f"the quota of {name} is {over}", f"{hint} the quota in policy.yaml")


def _oldest(connection: sqlite3.Connection, name: str) -> str | None:
    """The oldest live version that no alias names."""
    row = connection.execute(
        "SELECT number FROM versions v WHERE name = ? AND state = 'live' AND NOT EXISTS"
        " (SELECT 1 FROM aliases a WHERE a.name = v.name AND a.number = v.number)"
        " ORDER BY number LIMIT 1",
        (name,),
    ).fetchone()
    return None if row is None else f"{name}@{row['number']}"
