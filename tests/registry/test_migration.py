"""A registry of schema version 1 becomes one of today when it is opened, whole or not at all."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from adapterhub.manifest import BaseLink
from adapterhub_registry import tables
from adapterhub_registry.database import SCHEMA_VERSION
from adapterhub_registry.store import LocalRegistry

# As it was, word for word.
OLD_SCHEMA = (
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, time TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
        name TEXT NOT NULL, version INTEGER, alias TEXT, previous INTEGER, body TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX events_by_name ON events (name, seq)",
    """CREATE TABLE bases (
        name TEXT PRIMARY KEY, weights TEXT NOT NULL, record TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE versions (
        name TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL, ended TEXT, created TEXT, method TEXT, made_by TEXT, rank INTEGER,
        base TEXT, weights TEXT, size INTEGER, payload TEXT,
        PRIMARY KEY (name, number)
    ) STRICT""",
    "CREATE INDEX versions_by_base ON versions (weights, name)",
    "CREATE INDEX versions_by_method ON versions (method, name)",
    "CREATE TABLE manifests (digest TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT",
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
NEW_TABLES = ("events", "bases", "versions", "adapters", "scores", "manifests", "needs", "aliases")


def contents(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as connection:
        return {t: sorted(connection.execute(f"SELECT * FROM {t}"), key=repr) for t in NEW_TABLES}


def schema(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL")
        return {" ".join(row[0].split()) for row in rows}


def make_old(path: Path) -> None:
    """Replace a database by one of version 1 that tells the same."""
    old = path.with_name("old.sqlite3")
    with sqlite3.connect(old) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in OLD_SCHEMA:
            connection.execute(statement)
        connection.execute("ATTACH ? AS today", (str(path),))
        for table in ("events", "bases", "versions", "manifests", "needs", "aliases"):
            names = [r[1] for r in connection.execute(f"PRAGMA main.table_info({table})")]
            columns = ", ".join(names)
            connection.execute(f"INSERT INTO {table} SELECT {columns} FROM today.{table}")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    old.rename(path)


@pytest.fixture
def old(commit: Any, registry: Any, make_base: Any) -> tuple[Path, dict[str, list[Any]]]:
    """A database of version 1 in which everything has happened once, and what it must become."""
    base = make_base()
    registry.add_base(base)
    registry.add_base(make_base("gone", seed=1))
    registry.remove_base("gone")
    commit(base=BaseLink(status="recorded", name="llama", digests=base.digests))
    commit(seed=1, metrics={"relative_error": 0.25}), commit(seed=2), commit("team/french")
    registry.tag("sql@1", "prod")
    registry.tag("sql@2", "prod")
    registry.rollback("sql", "prod")
    registry.tag("sql@3", "beta")
    registry.untag("sql", "beta")
    evaluation = {"metric": "exact_match", "score": 0.5}
    registry.attest(registry.resolve("sql@1"), "evaluation", evaluation)
    registry.remove("sql@3")
    path = registry.database.path
    before = contents(path)
    assert all(before.values())
    make_old(path)
    return path, before


def test_it_becomes_what_it_would_be_had_it_been_made_today(
    old: tuple[Path, dict[str, list[Any]]], home: Path, tmp_path: Path, commit: Any
) -> None:
    path, before = old
    opened = LocalRegistry(home)
    assert opened.resolve("sql@prod").number == 1
    assert contents(path) == before
    LocalRegistry(tmp_path / "fresh").names()
    assert schema(path) == schema(tmp_path / "fresh" / "registry" / "registry.sqlite3")
    assert [version.number for version in opened.restore("sql@3")] == [3]
    assert commit().number == 4
    assert not list(opened.check())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION


def test_it_needs_neither_the_journal_nor_the_blobs(
    old: tuple[Path, dict[str, list[Any]]], home: Path
) -> None:
    path, before = old
    (path.parent / "names.jsonl").unlink()
    shutil.rmtree(path.parent / "blobs")
    assert LocalRegistry(home).names() == ["sql", "team/french"]
    assert contents(path) == before


def test_an_interrupted_migration_leaves_the_old_tables(
    old: tuple[Path, dict[str, list[Any]]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = old
    was, apply = schema(path), tables.apply

    def stop_halfway(connection: Any, event: Any, manifest: Any) -> None:
        if event.action == "rollback":
            raise KeyboardInterrupt
        apply(connection, event, manifest)

    with monkeypatch.context() as patched:
        patched.setattr(tables, "apply", stop_halfway)
        with pytest.raises(KeyboardInterrupt):
            LocalRegistry(home).names()
    assert schema(path) == was
    assert LocalRegistry(home).names() == ["sql", "team/french"]
    assert contents(path) == before


def test_a_database_of_version_3_gets_the_indexes_of_today(
    commit: Any, registry: Any, home: Path, tmp_path: Path
) -> None:
    commit()
    path = registry.database.path
    with registry.database.reading() as connection:
        connection.execute("DROP INDEX latest_by_weights_method")
        connection.execute("DROP INDEX latest_by_weights_method_created")
        connection.execute("PRAGMA user_version = 3")
    opened = LocalRegistry(home)
    assert opened.names() == ["sql"]
    LocalRegistry(tmp_path / "fresh").names()
    assert schema(path) == schema(tmp_path / "fresh" / "registry" / "registry.sqlite3")
    assert not list(opened.check())
