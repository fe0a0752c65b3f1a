"""Finding versions: what a reference means, and what to say when it means nothing."""

from __future__ import annotations

import sqlite3

from adapterhub.errors import EXIT_VERIFICATION, AdzError, unknown_name, usage_error
from adapterhub.manifest import Version
from adapterhub.reference import LATEST, Reference, parse_reference
from adapterhub_registry import splits

_VERSION = """
    SELECT v.name, v.number, v.digest, v.state, v.ended, v.size, m.body,
        (SELECT group_concat(alias, ' ') FROM aliases a
         WHERE a.name = v.name AND a.number = v.number) AS aliases
    FROM versions v LEFT JOIN manifests m ON m.digest = v.digest
"""

_AROUND = 5000

_GONE = {
    "removed": "was removed",
    "collected": "was removed, and 'adz gc' deleted its files",
    "lost": "is lost: its manifest is gone",
}


def live_versions(connection: sqlite3.Connection, name: str | None) -> list[sqlite3.Row]:
    """The live versions of a name or of all, by name and number."""
    if name is not None:
        return versions_in(connection, name, "live")
    query = f"{_VERSION} WHERE v.state = 'live' ORDER BY v.name, v.number"
    return connection.execute(query).fetchall()


def versions_in(connection: sqlite3.Connection, name: str, state: str) -> list[sqlite3.Row]:
    """The versions of a name that are in that state, by number."""
    query = f"{_VERSION} WHERE v.name = ? AND v.state = ? ORDER BY v.number"
    return connection.execute(query, (name, state)).fetchall()


def with_payload(connection: sqlite3.Connection, payload: str) -> list[sqlite3.Row]:
    """The live versions with this payload digest, by name and number."""
    where = "WHERE v.state = 'live' AND v.payload = ? ORDER BY v.name, v.number"
    return connection.execute(f"{_VERSION} {where}", (payload,)).fetchall()


def find(
    connection: sqlite3.Connection, reference: Reference, key: str | None = None
) -> sqlite3.Row:
    """The live version that `reference` means now; of a split alias the one for `key`."""
    row = find_any(connection, reference, key)
    if row["state"] != "live":
        raise not_there(connection, reference, row["state"])
    return row


def find_any(
    connection: sqlite3.Connection, reference: Reference, key: str | None = None
) -> sqlite3.Row:
    """The version that `reference` means now, also one that is not live any more."""
    if reference.kind == "number":
        row = with_number(connection, reference.name, int(reference.selector))
    elif reference.kind == "digest":
        row = _by_digest(connection, reference)
    elif reference.selector == LATEST:
        where = "WHERE v.name = ? AND v.latest = 1"
        row = connection.execute(f"{_VERSION} {where}", (reference.name,)).fetchone()
    else:
        row = _by_alias(connection, reference, key)
    if row is None:
        raise _unknown(connection, reference)
    return row


def not_there(connection: sqlite3.Connection, reference: Reference, state: str) -> AdzError:
    """Why a version that is removed, collected or lost cannot be used."""
    message = f"{reference} {_GONE[state]}"
    if state == "lost":
        return AdzError(message, "run 'adz fsck'", exit_code=EXIT_VERIFICATION)
    hint = _versions_hint(connection, reference.name)
    if state == "removed":
        hint = f"bring it back: adz restore {reference}; {hint}"
    return usage_error(message, hint)


def require_files(connection: sqlite3.Connection, version: Version) -> None:
    """Refuse a version that was never here, or whose files were deleted."""
    exact = parse_reference(f"{version.name}@{version.digest}")
    state = find_any(connection, exact)["state"]
    if state not in ("live", "removed"):
        raise not_there(connection, exact, state)


def with_number(connection: sqlite3.Connection, name: str, number: int) -> sqlite3.Row | None:
    """The version of that number, whatever became of it, or None."""
    row: sqlite3.Row | None = connection.execute(
        f"{_VERSION} WHERE v.name = ? AND v.number = ?", (name, number)
    ).fetchone()
    return row


def alias_target(connection: sqlite3.Connection, name: str, alias: str) -> int | None:
    """The number that an alias points to, or None."""
    row = connection.execute(
        "SELECT number FROM aliases WHERE name = ? AND alias = ?", (name, alias)
    ).fetchone()
    return None if row is None else int(row["number"])


def aliases_of(connection: sqlite3.Connection, name: str) -> dict[str, int]:
    """Every alias of a name and where it points."""
    rows = connection.execute(
        "SELECT alias, number FROM aliases WHERE name = ? ORDER BY alias", (name,)
    )
    return {row["alias"]: row["number"] for row in rows}


def alias_moves(connection: sqlite3.Connection, name: str, alias: str) -> list[int | None]:
    """The versions that an alias went through and that a rollback can undo, the present last;
    None for a split."""
    moves: list[int | None] = []
    for row in connection.execute(
        "SELECT action, version FROM events WHERE name = ? AND alias = ? ORDER BY seq",
        (name, alias),
    ):
        if row["action"] == "tag":
            moves.append(row["version"])
        elif row["action"] == "split":
            moves.append(None)
        elif row["action"] == "rollback":
            moves.pop()
            while moves and moves[-1] is None:
                moves.pop()
        else:
            moves.clear()
    return moves


def require_name(connection: sqlite3.Connection, name: str) -> None:
    """Refuse a name that was never an adapter's."""
    if not is_adapter(connection, name):
        raise _unknown_adapter(connection, name)


def is_adapter(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a version of that name was ever committed."""
    query = "SELECT 1 FROM versions WHERE name = ? LIMIT 1"
    return connection.execute(query, (name,)).fetchone() is not None


def is_base(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a base has that name."""
    return connection.execute("SELECT 1 FROM bases WHERE name = ?", (name,)).fetchone() is not None


def _by_alias(
    connection: sqlite3.Connection, reference: Reference, key: str | None
) -> sqlite3.Row | None:
    number = alias_target(connection, reference.name, reference.selector)
    weights = splits.weights_of(connection, reference.name, reference.selector) if key else None
    if key and weights:
        number = splits.choose(str(reference), weights, key)
    return None if number is None else with_number(connection, reference.name, number)


def _by_digest(connection: sqlite3.Connection, reference: Reference) -> sqlite3.Row | None:
    # 'g' follows every hexadecimal digit, so the range holds what begins with the prefix.
    low, high = reference.selector, reference.selector + "g"
    rows = connection.execute(
        # '+' makes SQLite search by digest: a name can have many more versions.
        f"{_VERSION} WHERE +v.name = ? AND v.digest >= ? AND v.digest < ? LIMIT 2",
        (reference.name, low, high),
    ).fetchall()
    if len(rows) > 1:
        raise usage_error(f"{reference} means more than one version", "give more digits")
    return rows[0] if rows else None


def _unknown(connection: sqlite3.Connection, reference: Reference) -> AdzError:
    name = reference.name
    if not is_adapter(connection, name):
        return _unknown_adapter(connection, name)
    hint = _versions_hint(connection, name)
    if reference.kind == "number":
        return usage_error(f"{name} has no version {reference.selector}", hint)
    if reference.kind == "digest":
        return usage_error(f"{name} has no version {reference.selector}", f"see 'adz log {name}'")
    if reference.selector == LATEST:
        return usage_error(f"every version of {name} was removed", f"see 'adz log {name}'")
    aliases = aliases_of(connection, name)
    known = f"its aliases are {', '.join(aliases)}" if aliases else f"{name} has no alias yet"
    return usage_error(f"{name} has no alias {reference.selector!r}", known)


def _unknown_adapter(connection: sqlite3.Connection, name: str) -> AdzError:
    if is_base(connection, name):
        return usage_error(f"{name} is a base, not an adapter", f"see 'adz base show {name}'")
    return unknown_name("adapter", name, _similar_names(connection, name))


def _similar_names(connection: sqlite3.Connection, name: str) -> list[str]:
    """The names that share most with `name`, of those around it: also of a hundred thousand they
    must be found at once."""
    parts = [name[i : i + 3] for i in range(max(len(name) - 2, 1))]
    shared = " + ".join(f"(instr(name, ?{i + 3}) > 0)" for i in range(len(parts)))
    query = f"""
        SELECT name FROM (
            SELECT * FROM (SELECT name FROM adapters WHERE name < ?1 ORDER BY name DESC LIMIT ?2)
            UNION ALL
            SELECT * FROM (SELECT name FROM adapters WHERE name > ?1 ORDER BY name LIMIT ?2)
        ) ORDER BY {shared} DESC, name LIMIT 50
    """
    return [row["name"] for row in connection.execute(query, (name, _AROUND, *parts))]


def _versions_hint(connection: sqlite3.Connection, name: str) -> str:
    query = "SELECT number FROM versions WHERE name = ? AND state = 'live' ORDER BY number"
    numbers = [row["number"] for row in connection.execute(query, (name,))]
    if not numbers:
        return f"{name} has no live version"
    if len(numbers) > 8:
        return f"it has {len(numbers)} versions, {numbers[0]} to {numbers[-1]}"
    return f"it has {', '.join(map(str, numbers))}"
