"""The tables of the database and how an event changes them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from adapterhub.manifest import BaseRecord, Manifest, canonical_json
from adapterhub_registry import splits
from adapterhub_registry.journal import Event

# A base's adapters of one method, by name and by age: of the base's alone, or of the method's,
# nearly all may be others.
PAIRED = (
    "CREATE INDEX latest_by_weights_method ON versions (weights, method, name) WHERE latest = 1",
    "CREATE INDEX latest_by_weights_method_created ON versions (weights, method, created, name)"
    " WHERE latest = 1",
)

SCHEMA = (
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, time TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
        name TEXT NOT NULL, version INTEGER, alias TEXT, previous INTEGER, body TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX events_by_name ON events (name, seq)",
    """CREATE TABLE bases (
        name TEXT PRIMARY KEY, weights TEXT NOT NULL, record TEXT NOT NULL
    ) STRICT""",
    # state: live, removed (since `ended`), collected (its files were deleted), or lost (its
    # manifest was gone at a rebuild). latest: 1 for the highest live version of a name, else 0.
    # The columns after it repeat what the manifest says, for listing and filtering.
    """CREATE TABLE versions (
        name TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL, ended TEXT, latest INTEGER NOT NULL DEFAULT 0,
        created TEXT, method TEXT, made_by TEXT, rule TEXT, rank INTEGER,
        base TEXT, weights TEXT, size INTEGER, payload TEXT,
        PRIMARY KEY (name, number)
    ) STRICT""",
    "CREATE INDEX versions_live ON versions (name, number) WHERE state = 'live'",
    "CREATE INDEX versions_by_payload ON versions (payload) WHERE state = 'live'",
    "CREATE INDEX versions_removed ON versions (name, number) WHERE state = 'removed'",
    "CREATE UNIQUE INDEX latest_by_name ON versions (name) WHERE latest = 1",
    *(
        f"CREATE INDEX latest_by_{column} ON versions ({column}, name) WHERE latest = 1"
        for column in ("base", "weights", "method", "rule", "created", "size", "rank")
    ),
    *PAIRED,
    # What the live versions of a name amount to. A name without one is not there.
    """CREATE TABLE adapters (
        name TEXT PRIMARY KEY, versions INTEGER NOT NULL, size INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    # The figures of a version: those of its manifest, and the last evaluation by each metric,
    # over all tasks (`exact_match`) and of each (`exact_match:sql`).
    """CREATE TABLE scores (
        metric TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, value REAL NOT NULL,
        PRIMARY KEY (metric, name, number)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX scores_by_value ON scores (metric, value)",
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
    "CREATE INDEX aliases_by_version ON aliases (name, number)",
    "CREATE INDEX aliases_by_alias ON aliases (alias, name)",
    *splits.SCHEMA,
    # No event: a lease is nothing that a rebuilt registry must know.
    """CREATE TABLE leases (
        holder TEXT NOT NULL, digest TEXT NOT NULL, until TEXT NOT NULL,
        PRIMARY KEY (holder, digest)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX leases_by_digest ON leases (digest, until)",
)

_STATES = {"remove": "removed", "restore": "live", "collect": "collected"}


def create(
    connection: sqlite3.Connection,
    events: Iterable[Event],
    read_manifest: Callable[[str], bytes | None],
) -> None:
    """Make the tables and apply every event. read_manifest: digest -> a manifest's stored bytes,
    or None where they are gone."""
    for statement in SCHEMA:
        connection.execute(statement)
    for event in events:
        digest = event.body["digest"] if event.action in ("commit", "pull") else None
        apply(connection, event, read_manifest(digest) if digest else None)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """From the tables of an older schema version to these, one step after the other."""
    if version == 1:
        _from_1(connection)
        return
    for old in sorted(_STEPS):
        if old >= version:
            _STEPS[old](connection)


def _from_2(connection: sqlite3.Connection) -> None:
    """To version 3: no alias was split."""
    for statement in splits.SCHEMA:
        connection.execute(statement)


def _from_3(connection: sqlite3.Connection) -> None:
    """To version 4: two more indexes."""
    for statement in PAIRED:
        connection.execute(statement)


_STEPS = {2: _from_2, 3: _from_3}


def _from_1(connection: sqlite3.Connection) -> None:
    """Its events are applied to new tables."""
    for table in ("aliases", "needs", "versions", "bases"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("DROP INDEX events_by_name")
    for table in ("events", "manifests"):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")

    def read_manifest(digest: str) -> bytes | None:
        query = "SELECT body FROM old_manifests WHERE digest = ?"
        row = connection.execute(query, (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    create(connection, _old_events(connection), read_manifest)
    for table in ("events", "manifests"):
        connection.execute(f"DROP TABLE old_{table}")


def _old_events(connection: sqlite3.Connection) -> Iterator[Event]:
    for row in connection.execute("SELECT * FROM old_events ORDER BY seq"):
        yield Event(**{**dict(row), "body": json.loads(row["body"])})


def apply(connection: sqlite3.Connection, event: Event, manifest: bytes | None) -> None:
    """Change the tables by one event. `manifest`: the stored bytes that a commit names."""
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            event.seq, event.time, event.actor, event.action, event.name, event.version,
            event.alias, event.previous, canonical_json(event.body).decode(),
        ),
    )  # fmt: skip
    if event.action in ("commit", "pull"):
        _add_version(connection, event, manifest)
    elif event.action in ("tag", "rollback", "split", "untag"):
        splits.point(connection, event)
    elif event.action in _STATES:
        _change_state(connection, event, _STATES[event.action])
    elif event.action == "attest":
        _score(connection, event)
    elif event.action == "add-base":
        record = BaseRecord.model_validate(event.body)
        connection.execute(
            "INSERT OR REPLACE INTO bases VALUES (?, ?, ?)",
            (event.name, record.digests.weights, canonical_json(event.body).decode()),
        )
    elif event.action == "remove-base":
        connection.execute("DELETE FROM bases WHERE name = ?", (event.name,))


def _add_version(connection: sqlite3.Connection, event: Event, body: bytes | None) -> None:
    """A pulled version may be one that was here before, and takes its row again."""
    digest = event.body["digest"]
    if body is None:
        # The number stays taken and the history complete; `fsck` reports it.
        connection.execute(
            "INSERT OR IGNORE INTO versions (name, number, digest, state) VALUES (?, ?, ?, 'lost')",
            (event.name, event.version, digest),
        )
        return
    manifest = Manifest.model_validate_json(body)
    known = facts(manifest)
    query = "SELECT 1 FROM versions WHERE digest = ? AND state = 'live'"
    is_new = connection.execute(query, (digest,)).fetchone() is None
    connection.execute("INSERT OR IGNORE INTO manifests VALUES (?, ?)", (digest, body))
    connection.execute(
        "INSERT OR REPLACE INTO versions VALUES (:name, :number, :digest, 'live', NULL, 0,"
        " :created, :method, :made_by, :rule, :rank, :base, :weights, :size, :payload)",
        {"name": event.name, "number": event.version, "digest": digest, **known},
    )
    connection.executemany(
        "INSERT OR IGNORE INTO needs VALUES (?, ?, ?)",
        [(digest, blob, size) for blob, size in needs(digest, body, manifest).items()],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?)",
        [(m, event.name, event.version, v) for m, v in manifest.metrics.items() if _is_score(v)],
    )
    _count(connection, event.name, is_new, is_new * known["size"])


def _change_state(connection: sqlite3.Connection, event: Event, state: str) -> None:
    """Move a version into `state`; a lost one stays lost."""
    row = connection.execute(
        "SELECT state, size FROM versions WHERE name = ? AND number = ? AND state != 'lost'",
        (event.name, event.version),
    ).fetchone()
    if row is None:
        return
    connection.execute(
        "UPDATE versions SET state = ?1, ended = iif(?1 = 'live', NULL, ifnull(ended, ?2))"
        " WHERE name = ?3 AND number = ?4",
        (state, event.time, event.name, event.version),
    )
    sign = (state == "live") - (row[0] == "live")
    if sign:
        _count(connection, event.name, sign, sign * row[1])


def _count(connection: sqlite3.Connection, name: str, versions: int, size: int) -> None:
    """Keep true what is known of a name as a whole, after a version came or went."""
    connection.execute(
        "INSERT INTO adapters VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET versions = versions + excluded.versions, size = size + excluded.size",
        (name, versions, size),
    )
    connection.execute("DELETE FROM adapters WHERE name = ? AND versions = 0", (name,))
    connection.execute("UPDATE versions SET latest = 0 WHERE name = ? AND latest = 1", (name,))
    connection.execute(
        "UPDATE versions SET latest = 1 WHERE name = ?1 AND number = ("
        " SELECT max(number) FROM versions WHERE name = ?1 AND state = 'live')",
        (name,),
    )


def _score(connection: sqlite3.Connection, event: Event) -> None:
    """The last evaluation by a metric counts, as `metric`, and the last on each task, as
    `metric:task`."""
    body = event.body["body"]
    if event.body["kind"] == "evaluation" and _is_score(body.get("score")):
        metric, task = str(body.get("metric")), body.get("task")
        keys = [metric] if task is None else [metric, f"{metric}:{task}"]
        connection.executemany(
            "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)",
            [(key, event.name, event.version, body["score"]) for key in keys],
        )


def _is_score(value: object) -> bool:
    # SQLite's numbers end somewhere, JSON's do not.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**62


def facts(manifest: Manifest) -> dict[str, Any]:
    """The columns of `versions` that repeat the manifest."""
    digests = manifest.base.digests
    rank, rule = manifest.adapter.get("rank"), manifest.recipe.get("rule")
    return {
        "created": manifest.created,
        "method": manifest.method,
        "made_by": manifest.made_by,
        "rule": rule if manifest.made_by == "merge" and isinstance(rule, str) else None,
        "rank": rank if isinstance(rank, int) and abs(rank) < 2**31 else None,
        "base": manifest.base.name,
        "weights": digests.weights if digests else None,
        "size": sum(record.size for record in manifest.files.values()),
        "payload": manifest.payload,
    }


def needs(digest: str, body: bytes, manifest: Manifest) -> dict[str, int]:
    """The blobs of a version and their sizes: its manifest, payload and artifacts."""
    records = [*manifest.files.values(), *manifest.artifacts.values()]
    return {digest: len(body)} | {record.sha256: record.size for record in records}
