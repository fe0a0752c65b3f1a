"""`adz fsck --repair` of the journal, the database and both."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from damages import HOW, contents, damage, weights

from adapterhub.errors import EXIT_OK, EXIT_VERIFICATION, AdzError
from adapterhub.protocols import Finding
from adapterhub_registry.store import LocalRegistry

MADE_UP = [Finding("registry.sqlite3", "made up")]


@pytest.mark.parametrize("how", [*HOW, "first line"])
def test_a_damaged_journal_is_written_from_the_database(
    lived_in: LocalRegistry, adz: Any, how: str
) -> None:
    before = contents(lived_in)
    path = lived_in.database.journal.path
    first = path.read_bytes().partition(b"\n")[2]
    damage(path, first if how == "first line" else HOW[how](path))
    assert adz("fsck").code == EXIT_VERIFICATION
    result = adz("fsck", "--repair")
    assert (result.code, "lost for good" in result.out) == (EXIT_OK, False)
    assert contents(lived_in) == before
    lived_in.database.path.unlink()
    lived_in.names()
    assert contents(lived_in) == before


@pytest.mark.parametrize("how", ["rubbish", "no tables", "other rows", "short"])
def test_a_damaged_database_is_made_from_the_journal(
    lived_in: LocalRegistry, adz: Any, home: Path, how: str
) -> None:
    before = contents(lived_in)
    path = lived_in.database.path
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if how == "other rows":
            connection.execute("UPDATE versions SET digest = 'sha256:0' || number || name")
            connection.execute("UPDATE events SET name = 'nobody' WHERE seq = 2")
    if how == "no tables":
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE aliases")
    connection.close()
    if how == "rubbish":
        path.write_bytes(b"rubbish" * 1000)
    if how == "short":
        path.write_bytes(path.read_bytes()[:8192])
    if how in ("rubbish", "short"):
        # With its log beside it SQLite would recover.
        for file in path.parent.glob("registry.sqlite3-*"):
            file.unlink()
    registry = LocalRegistry(home)
    assert list(registry.check(bases=False))
    result = adz("fsck", "--repair")
    assert (result.code, result.err) == (EXIT_OK, result.err)
    assert "the old one is registry.sqlite3.damaged" in result.out
    assert contents(registry) == before
    assert path.with_name("registry.sqlite3.damaged").exists()


def test_a_version_whose_line_is_damaged_is_found_by_its_manifest(
    lived_in: LocalRegistry, adz: Any
) -> None:
    versions = [(v.reference, v.digest, v.aliases) for v in lived_in.versions()]
    lived_in.database.path.unlink()
    path = lived_in.database.journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    lines = [line.replace(b'"event"', b'"evenu"') if b'"commit"' in line else line
             for line in lines]  # fmt: skip
    path.write_bytes(b"".join(lines))
    result = adz("fsck", "--repair")
    assert (result.code, "lost for good" in result.out) == (EXIT_OK, True)
    assert [(v.reference, v.digest, v.aliases) for v in lived_in.versions()] == versions
    assert all(lived_in.log(v.name)[0].source == "found by fsck" for v in lived_in.versions())
    work = lived_in.versions()[-1]
    assert lived_in.tag(work.reference, "prod").digest == work.digest
    assert adz("fsck").code == EXIT_OK


def test_with_neither_database_nor_journal_versions_are_found_and_the_rest_is_said_to_be_lost(
    lived_in: LocalRegistry, adz: Any, commit: Any
) -> None:
    versions = {(v.reference, v.digest) for v in lived_in.versions()}
    commit("alone", seed=99), commit("alone", seed=98)
    lived_in.remove("alone@1")
    lived_in.remove("alone@2")
    lived_in.collect(grace_seconds=0, retention_seconds=0)
    names = {version.name for version in lived_in.versions()}
    gone = {e.version for n in names for e in lived_in.log(n) if e.action == "remove"}
    blobs = {path.name for path in lived_in.blobs.directory.iterdir()}
    lived_in.database.path.unlink()
    lived_in.database.journal.path.unlink()
    for command in (("ls",), ("gc", "--grace", "0"), ("fsck",)):
        result = adz(*command)
        assert result.code == EXIT_VERIFICATION, command
        assert "are both gone" in result.out + result.err
    assert {path.name for path in lived_in.blobs.directory.iterdir()} == blobs
    result = adz("fsck", "--repair")
    assert (result.code, "lost for good" in result.out) == (EXIT_OK, True)
    found = {(v.reference, v.digest) for v in lived_in.versions()}
    assert versions <= found
    # A removed version whose files another one has cannot be told from a live one.
    assert {int(reference.partition("@")[2]) for reference, _ in found - versions} <= gone
    # What was removed and collected keeps its number, and stays removed.
    assert "alone" not in lived_in.names()
    assert commit("alone").number == 3
    assert adz("fsck").code == EXIT_OK


def test_a_lost_version_comes_back_from_a_remote(
    lived_in: LocalRegistry, share: Path, adz: Any
) -> None:
    before = contents(lived_in)
    version = lived_in.versions()[0]
    lived_in.blobs.path(version.digest).unlink()
    lived_in.blobs.path(weights(lived_in).sha256).unlink()
    for view in lived_in.views.directory.glob("*/adapter_model.safetensors"):
        damage(view, None)
    lived_in.database.path.unlink()
    with pytest.raises(AdzError, match="is lost"):
        lived_in.resolve(version.reference)
    result = adz("fsck", "--repair", str(share))
    assert (result.code, result.err) == (EXIT_OK, result.err), result.out
    assert contents(lived_in) == before
    lived_in.path(lived_in.resolve(version.reference))


def test_who_writes_meanwhile_loses_nothing(
    lived_in: LocalRegistry, home: Path, payloads: Path
) -> None:
    stop, written = threading.Event(), []

    def write() -> None:
        registry = LocalRegistry(home)
        version = registry.versions()[0].reference
        while not stop.is_set():
            registry.tag(version, f"a{len(written)}")
            written.append(f"a{len(written)}")
            stop.wait(0.01)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(5):
        done = len(written)
        list(lived_in.mend(MADE_UP))
        while len(written) < done + 3 and thread.is_alive():
            stop.wait(0.01)
    stop.set()
    thread.join()
    assert len(written) >= 15
    assert set(written) <= set(lived_in.versions()[0].aliases)
    assert not list(lived_in.check(bases=False))
