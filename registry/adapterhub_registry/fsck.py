"""Verifying every blob, manifest and pointer (`adz fsck`). Finds; repairs nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from adapterhub.bases.digests import compute_digests, hash_file
from adapterhub.bases.identity import explain_difference
from adapterhub.errors import AdzError
from adapterhub.manifest import Manifest, Version, payload_digest, sha256_of
from adapterhub.protocols import Finding
from adapterhub_registry import bases, lookup
from adapterhub_registry.storage import Storage
from adapterhub_registry.tables import facts, needs


def check(registry: Storage) -> Iterator[Finding]:
    """Yield what is wrong, the names of the versions that suffer with it."""
    with registry.database.reading() as connection:
        yield from _check_database(connection)
        yield from _check_history(registry, connection)
        yield from _check_numbers(connection)
        yield from _check_aliases(connection)
        yield from _check_manifests(registry, connection)
        yield from _check_bases(connection)
    yield from _check_blobs(registry)
    yield from _check_views(registry)


def _check_database(connection: sqlite3.Connection) -> Iterator[Finding]:
    for row in connection.execute("PRAGMA integrity_check"):
        if row[0] != "ok":
            yield Finding("registry.sqlite3", row[0])


def _check_history(registry: Storage, connection: sqlite3.Connection) -> Iterator[Finding]:
    # The database first: a change that is made meanwhile is then in the journal too.
    rows = connection.execute("SELECT * FROM events ORDER BY seq").fetchall()
    written = {event.seq: event for event in registry.database.journal.read()}
    for expected, row in enumerate(rows, start=1):
        if row["seq"] != expected:
            yield Finding("registry.sqlite3", f"the history lacks event {expected}")
            return
        event = written.get(row["seq"])
        versions = (f"{row['name']}@{row['version']}",) if row["version"] else ()
        if event is None:
            yield Finding("names.jsonl", f"event {row['seq']} is missing", versions)
        elif asdict(event) != {**dict(row), "body": json.loads(row["body"])}:
            yield Finding("names.jsonl", f"event {row['seq']} differs", versions)


def _check_numbers(connection: sqlite3.Connection) -> Iterator[Finding]:
    query = "SELECT name, count(*) AS n, max(number) AS top FROM versions GROUP BY name"
    for row in connection.execute(query):
        if row["n"] != row["top"]:
            yield Finding(row["name"], f"{row['n']} versions are known of {row['top']}")


def _check_aliases(connection: sqlite3.Connection) -> Iterator[Finding]:
    query = """
        SELECT a.name, a.alias, a.number, v.state FROM aliases a
        LEFT JOIN versions v ON v.name = a.name AND v.number = a.number
        WHERE v.state IS NOT 'live'
    """
    for row in connection.execute(query):
        version = f"{row['name']}@{row['number']}"
        yield Finding(f"{row['name']}@{row['alias']}", "the alias is dangling", (version,))


def _check_manifests(registry: Storage, connection: sqlite3.Connection) -> Iterator[Finding]:
    query = "SELECT v.*, m.body FROM versions v LEFT JOIN manifests m ON m.digest = v.digest"
    for row in connection.execute(query):
        version = f"{row['name']}@{row['number']}"
        if row["body"] is None or sha256_of(row["body"]) != row["digest"]:
            yield Finding(f"manifest {row['digest']}", "missing or damaged", (version,))
            continue
        try:
            manifest = Manifest.model_validate_json(row["body"])
        except ValidationError:
            yield Finding(f"manifest {row['digest']}", "not a manifest", (version,))
            continue
        problem = _manifest_problem(connection, row, manifest)
        if problem:
            yield Finding(f"manifest {row['digest']}", problem, (version,))


def _manifest_problem(
    connection: sqlite3.Connection, row: sqlite3.Row, manifest: Manifest
) -> str | None:
    if (manifest.name, manifest.version) != (row["name"], row["number"]):
        return f"it is of {manifest.name}@{manifest.version}"
    if payload_digest(manifest.files) != manifest.payload:
        return "its payload digest does not match its files"
    for column, value in facts(manifest).items():
        if row[column] != value:
            return f"the database has another {column}: {row[column]!r}, not {value!r}"
    query = "SELECT blob, size FROM needs WHERE digest = ?"
    known = {r["blob"]: r["size"] for r in connection.execute(query, (row["digest"],))}
    if known != needs(row["digest"], row["body"], manifest):
        return "the database has other files for it"
    return None


def _check_bases(connection: sqlite3.Connection) -> Iterator[Finding]:
    for record in bases.read(connection).values():
        rows = connection.execute(
            "SELECT name, number FROM versions WHERE weights = ? AND state = 'live'",
            (record.digests.weights,),
        )
        versions = tuple(f"{row['name']}@{row['number']}" for row in rows)
        try:
            differing = explain_difference(record.digests, compute_digests(Path(record.path)))
        except (AdzError, OSError) as error:
            yield Finding(f"base {record.name}", str(error), versions)
            continue
        if differing:
            parts = ", ".join(differing)
            yield Finding(f"base {record.name}", f"it changed on the disk: {parts}", versions)


def _check_blobs(registry: Storage) -> Iterator[Finding]:
    with registry.database.reading() as connection:
        query = """
            SELECT n.blob, n.size, v.name, v.number, v.state FROM needs n
            JOIN versions v ON v.digest = n.digest ORDER BY n.blob, v.name, v.number
        """
        rows = connection.execute(query).fetchall()
    sizes: dict[str, int] = {}
    users: dict[str, list[str]] = {}
    for row in rows:
        sizes[row["blob"]] = row["size"]
        live = users.setdefault(row["blob"], [])
        if row["state"] == "live":
            live.append(f"{row['name']}@{row['number']}")
    present = {f"sha256:{path.name}": path for path in registry.blobs.directory.iterdir()}
    for digest in sorted(sizes.keys() - present.keys()):
        if users[digest]:
            yield Finding(f"blob {digest}", "missing", tuple(users[digest]))
    for digest, path in sorted(present.items()):
        versions = tuple(users.get(digest, ()))
        try:
            size, actual = path.stat().st_size, hash_file(path)
        except FileNotFoundError:
            # Collected meanwhile.
            continue
        if size != sizes.get(digest, size):
            problem = f"{size} bytes instead of {sizes[digest]}"
            yield Finding(f"blob {digest}", problem, versions)
        elif actual != digest:
            yield Finding(f"blob {digest}", "its bytes do not match its digest", versions)


def _check_views(registry: Storage) -> Iterator[Finding]:
    with registry.database.reading() as connection:
        rows = lookup.live_versions(connection, None)
    for row in rows:
        if row["body"] is None or sha256_of(row["body"]) != row["digest"]:
            continue
        manifest = Manifest.model_validate_json(row["body"])
        version = Version(row["name"], row["number"], row["digest"], manifest)
        if registry.views.directory.joinpath(row["digest"].removeprefix("sha256:")).is_dir():
            problem = registry.views.problem(version)
            if problem:
                yield Finding(f"view of {version.reference}", problem, (version.reference,))
