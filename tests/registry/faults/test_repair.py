"""`adz fsck --repair`: from other copies here, from a remote, and from the manifests alone."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workload import EVERYTHING, Workload, snapshot

from adapterhub.errors import EXIT_OK, EXIT_VERIFICATION, AdzError
from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import FileRecord
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Finding
from adapterhub_registry import fsck
from adapterhub_registry.fsck import Extent
from adapterhub_registry.resume import Mark
from adapterhub_registry.store import LocalRegistry

MADE_UP = [Finding("registry.sqlite3", "made up")]
TABLES = ("events", "bases", "versions", "manifests", "needs", "aliases", "adapters", "scores")


@pytest.fixture
def lived_in(registry: LocalRegistry, payloads: Path) -> LocalRegistry:
    """A registry in which every kind of change happened, but the last removals."""
    work = Workload(registry, payloads, 0)
    for kind in EVERYTHING[:-2]:
        work.run(kind)
    for record in registry.bases():
        # Its files are nowhere, which fsck would find.
        registry.remove_base(record.name)
    assert len(registry.versions()) >= 2
    return registry


@pytest.fixture
def share(lived_in: LocalRegistry, tmp_path: Path) -> Path:
    """A directory to which everything was pushed."""
    folder = tmp_path / "share"
    folder.mkdir()
    names = sorted(lived_in.names())
    list(push(lived_in, open_remote(str(folder)), names, Silent(), every=True))
    return folder


def contents(registry: LocalRegistry) -> dict[str, list[Any]]:
    with sqlite3.connect(registry.database.path) as connection:
        return {t: sorted(connection.execute(f"SELECT * FROM {t}"), key=repr) for t in TABLES}


def damage(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink()
        return
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    return bytes(data)


def weights(registry: LocalRegistry) -> FileRecord:
    version = registry.versions()[0]
    return version.manifest.files["adapter_model.safetensors"]


HOW: dict[str, Callable[[Path], bytes | None]] = {
    "flipped": flip,
    "short": lambda path: path.read_bytes()[:-2],
    "missing": lambda path: None,
}


@pytest.mark.parametrize("how", HOW)
def test_a_file_comes_back_from_a_remote(
    lived_in: LocalRegistry, share: Path, adz: Any, how: str
) -> None:
    path = lived_in.blobs.path(weights(lived_in).sha256)
    before = path.read_bytes()
    damage(path, HOW[how](path))
    for view in lived_in.views.directory.glob("*/adapter_model.safetensors"):
        damage(view, None)
    result = adz("fsck", "--repair")
    assert result.code == EXIT_VERIFICATION
    result = adz("fsck", "--repair", str(share), "--json")
    assert (result.code, json.loads(result.out)["findings"]) == (EXIT_OK, [])
    assert "fetched from file://" in result.out
    assert path.read_bytes() == before
    assert adz("fsck").out == "everything is as it was stored\n"


def test_a_remote_that_lies_heals_nothing(lived_in: LocalRegistry, share: Path, adz: Any) -> None:
    record = weights(lived_in)
    path = lived_in.blobs.path(record.sha256)
    for view in lived_in.views.directory.glob("*/adapter_model.safetensors"):
        damage(view, None)
    there = [f for f in share.rglob("*") if f.is_file() and f.read_bytes() == path.read_bytes()]
    assert there
    for file in there:
        damage(file, flip(file))
    damage(path, None)
    result = adz("fsck", "--repair", str(share))
    assert result.code == EXIT_VERIFICATION
    assert "warning: blob" in result.err
    assert f"blob {record.sha256}: missing" in result.out
    assert not path.exists()


def test_only_the_right_bytes_heal(lived_in: LocalRegistry, tmp_path: Path) -> None:
    record = weights(lived_in)
    other = tmp_path / "other"
    other.write_bytes(b"x" * record.size)
    with pytest.raises(AdzError, match="is not the file") as caught:
        lived_in.heal(record, other)
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert not list(lived_in.check())


def test_other_copies_here_come_first(lived_in: LocalRegistry, adz: Any) -> None:
    version = lived_in.versions()[0]
    lived_in.path(version)
    manifest = lived_in.blobs.path(version.digest)
    file = lived_in.blobs.path(weights(lived_in).sha256)
    before = manifest.read_bytes(), file.read_bytes()
    damage(manifest, flip(manifest))
    damage(file, flip(file))
    result = adz("fsck", "--repair")
    assert (result.code, result.out.count("put back from its other copy here")) == (EXIT_OK, 2)
    assert (manifest.read_bytes(), file.read_bytes()) == before


def test_a_damaged_view_is_made_anew(lived_in: LocalRegistry, adz: Any) -> None:
    version = lived_in.versions()[0]
    file = lived_in.path(version) / "adapter_model.safetensors"
    facts, before = file.stat(), file.read_bytes()
    damage(file, flip(file))
    # A bad disk does not change times.
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert adz("fsck").code == EXIT_VERIFICATION
    result = adz("fsck", "--repair")
    assert (result.code, "it is made anew" in result.out) == (EXIT_OK, True)
    assert (lived_in.path(version) / "adapter_model.safetensors").read_bytes() == before


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


def test_the_shares_are_all_the_files(lived_in: LocalRegistry) -> None:
    digests = {f"sha256:{path.name}" for path in lived_in.blobs.directory.iterdir()}
    shares = [{d for d in digests if Extent(share=(n, 3)).covers(d)} for n in (1, 2, 3)]
    assert set().union(*shares) == digests
    assert sum(map(len, shares)) == len(digests)
    bad = sorted(digests)[0]
    path = lived_in.blobs.path(bad)
    damage(path, flip(path))
    found = [bool(list(lived_in.check(bases=False, share=(n, 3)))) for n in (1, 2, 3)]
    assert found == [bad in share for share in shares]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_share_that_means_nothing_is_refused(
    lived_in: LocalRegistry, adz: Any, text: str
) -> None:
    result = adz("fsck", "--subset", text)
    assert (result.code, "is not N/M" in result.err) == (2, True)


def test_a_check_that_broke_off_goes_on(
    lived_in: LocalRegistry, adz: Any, monkeypatch: Any
) -> None:

    hashed: list[str] = []
    real = fsck.hash_file
    blobs = sorted(lived_in.blobs.directory.iterdir())
    damage(blobs[0], flip(blobs[0]))

    def hash_file(path: Path, *rest: Any) -> str:
        if path.parent == lived_in.blobs.directory:
            hashed.append(path.name)
            if len(hashed) == 4:
                raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(fsck, "hash_file", hash_file)
    assert adz("fsck").code == 130
    assert (lived_in.root / "fsck.json").exists()
    hashed[:] = [*hashed[:3], "", ""]
    result = adz("fsck", "--resume")
    # The damaged one is looked at again: the result is that of a whole check.
    assert (result.code, blobs[0].name in result.out) == (EXIT_VERIFICATION, True)
    assert hashed[5:] == [blobs[0].name, *(path.name for path in blobs[3:])]
    assert not (lived_in.root / "fsck.json").exists()
    hashed.clear()
    hashed += [""] * 4
    adz("fsck", "--resume")
    assert len(hashed) == 4 + len(blobs)


def test_a_note_of_another_share_is_not_used(lived_in: LocalRegistry) -> None:
    mark = Mark(lived_in, (1, 2), keep=True)
    mark.passed("sha256:f", damaged=False)
    mark._write()
    assert Mark(lived_in, (1, 2), keep=True).left(["sha256:a"]) == []
    assert Mark(lived_in, (2, 2), keep=True).left(["sha256:a"]) == ["sha256:a"]


def test_repairing_what_is_whole_changes_nothing(lived_in: LocalRegistry, adz: Any) -> None:
    before = snapshot(lived_in)
    result = adz("fsck", "--repair")
    assert (result.code, result.out) == (EXIT_OK, "everything is as it was stored\n")
    assert snapshot(lived_in) == before
