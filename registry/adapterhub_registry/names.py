"""Verifying names: the database against its own history, the journal and the manifests.

The history is applied to empty tables in memory, and every row of the database must come out
the same. What a flipped bit changed in a table, an index or the history is so found, whatever
it is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from operator import attrgetter
from typing import Any

from pydantic import ValidationError

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import Manifest, canonical_json, payload_digest
from adapterhub.protocols import Finding
from adapterhub_registry import tables
from adapterhub_registry.blobs import is_intact
from adapterhub_registry.journal import Event
from adapterhub_registry.storage import Storage

DATABASE = "registry.sqlite3"
JOURNAL = "names.jsonl"

# In the order of the table's columns, the last of which is the body.
_FACTS = attrgetter("seq", "time", "actor", "action", "name", "version", "alias", "previous")
# Also of the indexes that SQLite makes itself, which have no text.
_SCHEMA = "SELECT name, type, tbl_name, sql FROM sqlite_master"
# The history is compared with the journal, and no event tells of a lease.
_NOT_REPLAYED = ("events", "leases")


def check_names(storage: Storage) -> list[Finding]:
    """What is wrong with the database or the journal."""
    findings: list[Finding] = []
    try:
        with storage.database.reading() as connection:
            # One moment of the database, whatever others write meanwhile.
            connection.execute("BEGIN")
            try:
                findings += _check_file(connection)
                findings += _check_numbers(connection)
                # The database was read first: what changes meanwhile is then in the journal too.
                written = storage.database.journal.read()
                findings += _check_journal(written, connection)
                findings += _check_manifests(connection)
                findings += _check_tables(storage, connection)
            finally:
                connection.execute("ROLLBACK")
        findings += _check_end(storage, written)
    except AdzError as error:
        if error.exit_code != EXIT_VERIFICATION:
            raise
        findings.append(_wrong(DATABASE, error.message))
    return findings


def read_events(connection: sqlite3.Connection) -> list[Event]:
    """The history that the database holds. Raises ValueError where a row is damaged."""
    rows = connection.execute("SELECT * FROM events ORDER BY seq")
    return [Event(**{**dict(row), "body": json.loads(row["body"])}) for row in rows]


def is_whole(storage: Storage) -> bool:
    """Whether the database agrees with its own history, the journal aside."""
    try:
        with storage.database.reading() as connection:
            wrong = [*_check_file(connection), *_check_numbers(connection)]
            return not wrong and not any(_check_tables(storage, connection))
    except AdzError as error:
        if error.exit_code != EXIT_VERIFICATION:
            raise
        return False


def _check_file(connection: sqlite3.Connection) -> Iterator[Finding]:
    for row in connection.execute("PRAGMA integrity_check"):
        if row[0] != "ok":
            yield _wrong(DATABASE, row[0])


def _check_numbers(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Events count 1, 2, 3, ...; so do the versions of a name, but for those that were pulled."""
    top: dict[str, int] = {}
    for expected, row in enumerate(connection.execute("SELECT * FROM events ORDER BY seq"), 1):
        if row["seq"] != expected:
            yield _wrong(DATABASE, f"the history lacks event {expected}")
            return
        if row["action"] in ("commit", "pull"):
            name, number = row["name"], row["version"]
            last = top.get(name, 0)
            if row["action"] == "commit" and number != last + 1:
                yield _wrong(DATABASE, f"{name} goes from version {last} to {number}")
            top[name] = max(last, number)


def _check_journal(written: list[Event], connection: sqlite3.Connection) -> Iterator[Finding]:
    known = {event.seq: event for event in written}
    for row in connection.execute("SELECT * FROM events ORDER BY seq"):
        event = known.get(row["seq"])
        versions = (f"{row['name']}@{row['version']}",) if row["version"] else ()
        if event is None:
            yield _wrong(JOURNAL, f"event {row['seq']} is missing", versions)
        elif (*_FACTS(event), canonical_json(event.body).decode()) != tuple(row):
            yield _wrong(JOURNAL, f"event {row['seq']} differs", versions)


def _check_end(storage: Storage, written: list[Event]) -> Iterator[Finding]:
    """A killed command leaves one change in the journal that the database lacks, not two."""
    with storage.database.reading() as connection:
        last = connection.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0]
    missing = [event for event in written if event.seq > last]
    if len({event.time for event in missing}) > 1:
        yield _wrong(DATABASE, f"it lacks the events from {last + 1} to {missing[-1].seq}")


def _check_manifests(connection: sqlite3.Connection) -> Iterator[Finding]:
    query = """
        SELECT v.name, v.number, v.digest, m.body FROM versions v
        LEFT JOIN manifests m ON m.digest = v.digest
    """
    for row in connection.execute(query):
        versions = (f"{row['name']}@{row['number']}",)
        subject = f"manifest {row['digest']}"
        if not is_intact(row["body"], row["digest"]):
            yield Finding(subject, "missing or damaged", versions, "names", row["digest"])
            continue
        try:
            manifest = Manifest.model_validate_json(row["body"])
        except ValidationError:
            yield Finding(subject, "not a manifest", versions, "names", row["digest"])
            continue
        if (manifest.name, manifest.version) != (row["name"], row["number"]):
            problem = f"it is of {manifest.name}@{manifest.version}"
            yield Finding(subject, problem, versions, "names", row["digest"])
        elif payload_digest(manifest.files) != manifest.payload:
            problem = "its payload digest does not match its files"
            yield Finding(subject, problem, versions, "names", row["digest"])


def _check_tables(storage: Storage, connection: sqlite3.Connection) -> Iterator[Finding]:
    def read_manifest(digest: str) -> bytes | None:
        query = "SELECT body FROM manifests WHERE digest = ?"
        row = connection.execute(query, (digest,)).fetchone()
        body = row["body"] if row else None
        return body if is_intact(body, digest) else storage.blobs.read(digest)

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as replayed:
        replayed.row_factory = sqlite3.Row
        try:
            replayed.execute("BEGIN")
            tables.create(replayed, read_events(connection), read_manifest)
        except (ValueError, TypeError, LookupError, sqlite3.Error) as error:
            yield _wrong(DATABASE, f"its history cannot be applied: {error}")
            return
        expected, found = _schema(replayed), _schema(connection)
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                yield _wrong(DATABASE, f"its table or index {name} is not that of this schema")
                return
        for row in replayed.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            if row["name"] not in _NOT_REPLAYED:
                yield from _compare(row["name"], replayed, connection)


def _schema(connection: sqlite3.Connection) -> dict[str, tuple[Any, ...]]:
    return {row["name"]: tuple(row) for row in connection.execute(_SCHEMA)}


def _compare(
    table: str, replayed: sqlite3.Connection, connection: sqlite3.Connection
) -> Iterator[Finding]:
    columns = replayed.execute(f"PRAGMA table_info({table})").fetchall()
    keys = [c["name"] for c in sorted(columns, key=lambda c: int(c["pk"])) if c["pk"]]
    # The name is that of a table of ours, out of its schema.
    query = f"SELECT * FROM {table}"  # noqa: S608
    expected = {tuple(row[k] for k in keys): row for row in replayed.execute(query)}
    found = {tuple(row[k] for k in keys): row for row in connection.execute(query)}
    for key in sorted(expected.keys() | found.keys(), key=repr):
        told, given = expected.get(key), found.get(key)
        subject = f"{table} {' '.join(map(str, key))}"
        versions = _versions(told if told is not None else given)
        if given is None:
            yield _wrong(DATABASE, f"{subject} is missing", versions)
        elif told is None:
            yield _wrong(DATABASE, f"{subject} is nothing that its history tells of", versions)
        elif tuple(told) != tuple(given):
            differing = [c for c in told.keys() if told[c] != given[c]]  # noqa: SIM118
            yield _wrong(DATABASE, f"{subject} has another {', '.join(differing)}", versions)


def _versions(row: Any) -> tuple[str, ...]:
    named = {"name", "number"} <= set(row.keys())
    return (f"{row['name']}@{row['number']}",) if named else ()


def _wrong(subject: str, problem: str, versions: tuple[str, ...] = ()) -> Finding:
    return Finding(subject, problem, versions, "names")
