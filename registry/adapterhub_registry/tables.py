"""The tables of the database and how an event changes them."""

from __future__ import annotations

import sqlite3

from adapterhub.manifest import BaseRecord, Manifest, canonical_json
from adapterhub_registry.journal import Event

SCHEMA = (
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, time TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
        name TEXT NOT NULL, version INTEGER, alias TEXT, previous INTEGER, body TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX events_by_name ON events (name, seq)",
    """CREATE TABLE bases (
        name TEXT PRIMARY KEY, weights TEXT NOT NULL, record TEXT NOT NULL
    ) STRICT""",
    # state: live, removed (since `ended`), or lost (its manifest was gone at a rebuild).
    # The columns after it repeat what the manifest says, for listing and filtering.
    """CREATE TABLE versions (
        name TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL, ended TEXT, created TEXT, method TEXT, made_by TEXT, rank INTEGER,
        base TEXT, weights TEXT, size INTEGER, payload TEXT,
        PRIMARY KEY (name, number)
    ) STRICT""",
    "CREATE INDEX versions_by_base ON versions (weights, name)",
    "CREATE INDEX versions_by_method ON versions (method, name)",
    "CREATE TABLE manifests (digest TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT",
    # Which version needs which blob: its manifest, payload and artifacts.
    """CREATE TABLE needs (
        digest TEXT NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (digest, blob)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX needs_by_blob ON needs (blob)",
    """CREATE TABLE aliases (
        name TEXT NOT NULL, alias TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (name, alias), FOREIGN KEY (name, number) REFERENCES versions (name, number)
    ) STRICT, WITHOUT ROWID""",
)


def apply(connection: sqlite3.Connection, event: Event, manifest: bytes | None) -> None:
    """Change the tables by one event. `manifest`: the stored bytes that a commit names."""
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            event.seq, event.time, event.actor, event.action, event.name, event.version,
            event.alias, event.previous, canonical_json(event.body).decode(),
        ),
    )  # fmt: skip
    if event.action == "commit":
        _add_version(connection, event, manifest)
    elif event.action in ("tag", "rollback"):
        connection.execute(
            "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)",
            (event.name, event.alias, event.version),
        )
    elif event.action == "untag":
        connection.execute(
            "DELETE FROM aliases WHERE name = ? AND alias = ?", (event.name, event.alias)
        )
    elif event.action == "remove":
        connection.execute(
            "UPDATE versions SET state = 'removed', ended = ? WHERE name = ? AND number = ?",
            (event.time, event.name, event.version),
        )
    elif event.action == "add-base":
        record = BaseRecord.model_validate(event.body)
        connection.execute(
            "INSERT OR REPLACE INTO bases VALUES (?, ?, ?)",
            (event.name, record.digests.weights, canonical_json(event.body).decode()),
        )
    elif event.action == "remove-base":
        connection.execute("DELETE FROM bases WHERE name = ?", (event.name,))


def _add_version(connection: sqlite3.Connection, event: Event, body: bytes | None) -> None:
    digest = event.body["digest"]
    if body is None:
        # The number stays taken and the history complete; `fsck` reports it.
        connection.execute(
            "INSERT INTO versions (name, number, digest, state) VALUES (?, ?, ?, 'lost')",
            (event.name, event.version, digest),
        )
        return
    manifest = Manifest.model_validate_json(body)
    connection.execute("INSERT INTO manifests VALUES (?, ?)", (digest, body))
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?, 'live', NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
        (event.name, event.version, digest, *facts(manifest).values()),
    )
    connection.executemany(
        "INSERT INTO needs VALUES (?, ?, ?)",
        [(digest, blob, size) for blob, size in needs(digest, body, manifest).items()],
    )


def facts(manifest: Manifest) -> dict[str, str | int | None]:
    """The columns of `versions` that repeat the manifest."""
    digests = manifest.base.digests
    rank = manifest.adapter.get("rank")
    return {
        "created": manifest.created,
        "method": manifest.method,
        "made_by": manifest.made_by,
        "rank": rank if isinstance(rank, int) else None,
        "base": manifest.base.name,
        "weights": digests.weights if digests else None,
        "size": sum(record.size for record in manifest.files.values()),
        "payload": manifest.payload,
    }


def needs(digest: str, body: bytes, manifest: Manifest) -> dict[str, int]:
    """The blobs of a version and their sizes: its manifest, payload and artifacts."""
    records = [*manifest.files.values(), *manifest.artifacts.values()]
    return {digest: len(body)} | {record.sha256: record.size for record in records}
