"""The database: rebuilt from the journal, newer schemas, locks, damage."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_FAILED, AdzError
from adapterhub.manifest import BaseLink
from adapterhub_registry.store import LocalRegistry

TABLES = ("events", "bases", "versions", "manifests", "needs", "aliases")


def contents(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as connection:
        return {t: sorted(connection.execute(f"SELECT * FROM {t}"), key=repr) for t in TABLES}


@pytest.fixture
def lived_in(commit: Any, registry: Any, make_base: Any) -> Any:
    """A registry in which everything has happened once."""
    base, moved = make_base(), make_base(folder="moved")
    registry.add_base(base)
    registry.add_base(make_base("gone", seed=1))
    registry.remove_base("gone")
    commit(base=BaseLink(status="recorded", name="llama", digests=base.digests))
    commit(seed=1), commit(seed=2), commit("team/french", method="dora")
    registry.add_base(moved)
    registry.tag("sql@1", "prod")
    registry.tag("sql@2", "prod")
    registry.rollback("sql", "prod")
    registry.tag("sql@3", "beta")
    registry.untag("sql", "beta")
    registry.attest(registry.resolve("sql@1"), "eval", {"score": 0.1 + 0.2, "text": "für"})
    registry.remove("sql@3")
    registry.collect(grace_seconds=0, retention_seconds=0)
    return registry


def test_a_lost_database_is_rebuilt_as_it_was(lived_in: Any, home: Path) -> None:
    path = lived_in.database.path
    before = contents(path)
    assert all(before.values())
    path.unlink()
    rebuilt = LocalRegistry(home)
    assert rebuilt.resolve("sql@prod").number == 1
    assert contents(path) == before
    assert rebuilt.tag("sql@2", "prod").number == 2
    assert not list(rebuilt.check())


@pytest.mark.parametrize("still_open", [True, False])
def test_a_stale_write_ahead_log_does_not_reach_the_rebuilt_database(
    lived_in: Any, tmp_path: Path, still_open: bool
) -> None:
    with lived_in.database.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
    # From here on the log holds a few pages that mean nothing without the rest.
    lived_in.tag("sql@2", "beta")
    before = contents(lived_in.database.path)
    home = lived_in.root.parent
    if not still_open:
        home = tmp_path / "copy"
        shutil.copytree(lived_in.root, home / "registry")
    path = home / "registry" / "registry.sqlite3"
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    path.unlink()
    rebuilt = LocalRegistry(home)
    assert rebuilt.resolve("sql@beta").number == 2
    assert contents(path) == before
    assert rebuilt.tag("sql@1", "beta").number == 1
    assert not list(rebuilt.check())


def test_a_process_that_is_open_notices_the_loss(lived_in: Any) -> None:
    lived_in.database.path.unlink()
    assert lived_in.names() == ["sql", "team/french"]


def test_a_change_that_was_written_down_but_not_committed_is_superseded(
    commit: Any, registry: Any, home: Path
) -> None:
    commit()

    def stop_before_the_commit() -> None:
        with registry.database.changing() as change:
            change.record("tag", "sql", version=1, alias="never")
            registry.database.journal.append(change.events)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_before_the_commit()
    assert registry.resolve("sql").aliases == ()
    registry.tag("sql@1", "prod")
    before = contents(registry.database.path)
    registry.database.path.unlink()
    rebuilt = LocalRegistry(home)
    assert rebuilt.resolve("sql").aliases == ("prod",)
    assert contents(registry.database.path) == before
    assert not list(rebuilt.check())


@pytest.mark.parametrize("torn", [b'{"event": {"act', b"\x00\xff", b'{"sha256": 1}'])
def test_half_a_line_of_a_killed_writer_is_no_obstacle(
    commit: Any, registry: Any, home: Path, torn: bytes
) -> None:
    commit()
    with registry.database.journal.path.open("ab") as file:
        file.write(torn)
    commit()
    assert not list(registry.check())
    registry.database.path.unlink()
    assert [v.number for v in LocalRegistry(home).versions("sql")] == [1, 2]


def test_a_version_whose_manifest_is_gone_keeps_its_number(
    commit: Any, registry: Any, home: Path
) -> None:
    commit()
    lost = commit()
    registry.blobs.path(lost.digest).unlink()
    registry.database.path.unlink()
    rebuilt = LocalRegistry(home)
    with pytest.raises(AdzError, match="sql@2 is lost"):
        rebuilt.resolve("sql@2")
    assert [v.number for v in rebuilt.versions("sql")] == [1]
    assert [f.versions for f in rebuilt.check()] == [("sql@2",)]
    assert commit().number == 3


def test_a_newer_schema_is_refused(commit: Any, registry: Any, home: Path) -> None:
    commit()
    with sqlite3.connect(registry.database.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = registry.database.path.read_bytes()
    with pytest.raises(AdzError, match=r"made by a newer adapterhub: its schema is 99") as caught:
        LocalRegistry(home).names()
    assert caught.value.exit_code == EXIT_FAILED
    assert registry.database.path.read_bytes() == before


def test_a_locked_database_is_one_clear_line(commit: Any, home: Path, registry: Any) -> None:
    commit()
    waiting = LocalRegistry(home, busy_seconds=0.1)
    with registry.database.changing():
        assert waiting.resolve("sql").number == 1
        with pytest.raises(AdzError, match="busy: another process is writing"):
            waiting.tag("sql@1", "prod")
    assert waiting.tag("sql@1", "prod").aliases == ("prod",)


def test_a_writer_waits_for_another(commit: Any, home: Path, registry: Any) -> None:
    commit()
    begun = threading.Event()
    done = []

    def tag() -> None:
        begun.set()
        done.append(LocalRegistry(home).tag("sql@1", "prod"))

    with registry.database.changing():
        thread = threading.Thread(target=tag)
        thread.start()
        begun.wait()
        thread.join(0.2)
        assert not done
    thread.join()
    assert done[0].aliases == ("prod",)


def test_a_file_that_is_no_database_says_what_to_do(commit: Any, registry: Any, home: Path) -> None:
    commit()
    path = registry.database.path
    # With its log beside it SQLite would recover.
    for file in path.parent.glob("registry.sqlite3*"):
        file.unlink()
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(AdzError, match=r"damaged.*adz fsck --repair"):
        LocalRegistry(home).names()
    path.unlink()
    assert LocalRegistry(home).names() == ["sql"]


def test_an_error_in_a_change_undoes_all_of_it(commit: Any, registry: Any) -> None:
    commit()
    before = contents(registry.database.path)
    journal = registry.database.journal.path.read_bytes()

    def fail() -> None:
        with registry.database.changing() as change:
            change.record("tag", "sql", version=1, alias="prod")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert contents(registry.database.path) == before
    assert registry.database.journal.path.read_bytes() == journal


def test_a_network_file_system_is_refused_unless_it_is_wanted(
    adz: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"30 1 0:40 / {tmp_path} rw - nfs4 server:/home rw\n")
    monkeypatch.setattr("adapterhub.file_systems._MOUNTS", table)
    result = adz("ls")
    assert (result.code, result.out) == (EXIT_FAILED, "")
    assert result.err == (
        f"adz: {home} lies on a network file system (nfs4), where locks are not reliable and a "
        "registry can be damaged (set ADZ_HOME to a folder on a local disk and share versions "
        "with 'adz push'; ADZ_ALLOW_NETWORK=1 opens it nevertheless)\n"
    )
    assert not home.exists()
    monkeypatch.setenv("ADZ_ALLOW_NETWORK", "1")
    assert adz("ls").code == 0
    problems = list(LocalRegistry(home).diagnose())
    assert any("network file system (nfs4)" in problem.problem for problem in problems)
