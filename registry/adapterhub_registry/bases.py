"""The base models that the registry knows: records, one namespace with the adapters."""

from __future__ import annotations

import sqlite3

from adapterhub.errors import EXIT_VERIFICATION, AdzError, unknown_name, usage_error
from adapterhub.manifest import BaseRecord, Manifest
from adapterhub.reference import check_new_name
from adapterhub_registry import lookup
from adapterhub_registry.database import Change


def read(connection: sqlite3.Connection) -> dict[str, BaseRecord]:
    """Every base by name."""
    rows = connection.execute("SELECT name, record FROM bases ORDER BY name")
    return {row["name"]: BaseRecord.model_validate_json(row["record"]) for row in rows}


def find(connection: sqlite3.Connection, name: str) -> BaseRecord:
    """The base of that name."""
    known = read(connection)
    if name in known:
        return known[name]
    if lookup.is_adapter(connection, name):
        raise usage_error(f"{name} is an adapter, not a base", f"see 'adz show {name}'")
    raise unknown_name("base", name, known)


def of_manifest(connection: sqlite3.Connection, manifest: Manifest) -> BaseRecord | None:
    """The known base whose weights an adapter was made for."""
    digests = manifest.base.digests
    for record in read(connection).values():
        if digests and record.digests.weights == digests.weights:
            return record
    return None


def add(change: Change, record: BaseRecord) -> None:
    """Record a base, or that the same base now lies elsewhere."""
    name = check_new_name(record.name)
    if lookup.is_adapter(change.connection, name):
        raise usage_error(f"{name!r} is an adapter's name", "give the base another name")
    known = read(change.connection).get(name)
    if known and known.digests != record.digests:
        raise AdzError(
            f"the base {name!r} is already known, with other content",
            f"give this one another name, or 'adz base rm {name}' first",
            exit_code=EXIT_VERIFICATION,
        )
    if known != record:
        change.record("add-base", name, body=record.model_dump(mode="json"))


def remove(change: Change, name: str) -> None:
    """Forget a base that no live version needs, or that is known by another name too."""
    record = find(change.connection, name)
    weights = record.digests.weights
    twins = [b for b in read(change.connection).values() if b.digests.weights == weights]
    users = change.connection.execute(
        "SELECT DISTINCT name FROM versions WHERE weights = ? AND state = 'live' ORDER BY name",
        (weights,),
    ).fetchall()
    if users and len(twins) < 2:
        names = ", ".join(row["name"] for row in users[:5])
        raise usage_error(f"the base {name!r} is needed by {names}", "remove these first")
    change.record("remove-base", name)


def refuse_name(connection: sqlite3.Connection, name: str) -> None:
    """Refuse an adapter's name that a base has."""
    if lookup.is_base(connection, name):
        raise usage_error(f"{name!r} is a base's name", "give the adapter another name")
