"""A bad disk: TEST_DAMAGES flipped bits, truncations and swaps, one at a time, of stored files,
journal, database and views. fsck finds every one, and names the versions concerned. They come in
batches, each of the same ones in every run."""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from workload import NAMES, manifest

from adapterhub.errors import AdzError
from adapterhub.protocols import Finding
from adapterhub_registry import database, storing
from adapterhub_registry.database import utc_text
from adapterhub_registry.store import LocalRegistry

DAMAGES = int(os.environ.get("TEST_DAMAGES", "250"))
BATCH = 250
PAGE = 4096
HOW = ("flip", "flip", "flip", "cut", "swap")


@pytest.fixture
def home(scratch: Path) -> Path:
    """Another home than that of the other tests: in memory."""
    return scratch / "home"


@pytest.fixture
def stored(home: Path, payloads: Path) -> LocalRegistry:
    """A registry with versions that share files, views, aliases, scores and a history. Its times
    are fixed, so that the same chance hits the same bits."""
    ticks = (utc_text(1.7e9 + tick) for tick in itertools.count())
    with (
        mock.patch.object(database, "utc_now", side_effect=ticks),
        mock.patch.object(storing, "utc_now", side_effect=ticks),
    ):
        registry = LocalRegistry(home)
        for name in NAMES:
            for payload in sorted(payloads.iterdir()):
                version = registry.commit(manifest(name), payload)
                registry.attest(version, "eval", {"metric": "exact_match", "score": 0.1 + 0.2})
                registry.path(version)
            registry.tag(f"{name}@1", "prod")
            registry.tag(f"{name}@3", "prod")
            registry.rollback(name, "prod")
            registry.remove(f"{name}@2")
    settle(registry)
    return registry


def settle(registry: LocalRegistry) -> None:
    """Close the database, all of it in its one file."""
    with registry.database.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for file in registry.root.glob("registry.sqlite3-*"):
        file.unlink()


def contents(path: Path) -> Any:
    """All that a database says, read without any of the registry's code; None if it cannot be."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT name, type, tbl_name, sql FROM sqlite_master ORDER BY name"
            schema = connection.execute(query).fetchall()
            names = [name for name, _, _, sql in schema if sql and sql.startswith("CREATE TABLE")]
            rows = {n: sorted(connection.execute(f"SELECT * FROM {n}"), key=repr) for n in names}
            return schema, rows, connection.execute("PRAGMA user_version").fetchone()
    except (sqlite3.Error, ValueError):
        return None


class Damage:
    """Puts one damage on files and takes it back; `chance` says which."""

    def __init__(self, registry: LocalRegistry, chance: random.Random) -> None:
        self._registry = registry
        self._chance = chance
        self._kept: list[tuple[Path, bytes, os.stat_result]] = []
        self._files: dict[str, list[Path]] = {
            "file": sorted(registry.blobs.directory.iterdir()),
            "journal": [registry.database.journal.path],
            "database": [registry.database.path],
            "view": sorted(p for p in registry.views.directory.glob("*/*") if p.is_file()),
        }

    def put(self, what: str, how: str) -> list[Path]:
        """Damage something; return the files."""
        files = self._files[what]
        path = self._chance.choice(files)
        data = path.read_bytes()
        if how == "flip":
            bit = self._chance.randrange(len(data) * 8)
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            self._write(path, bytes(changed))
        elif how == "cut":
            self._write(path, data[: self._chance.randrange(len(data) - 1)])
        elif what == "journal":
            lines = data.splitlines(keepends=True)
            one, two = self._chance.sample(range(len(lines)), 2)
            lines[one], lines[two] = lines[two], lines[one]
            self._write(path, b"".join(lines))
        elif what == "database":
            pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
            one, two = self._chance.sample(range(len(pages)), 2)
            pages[one], pages[two] = pages[two], pages[one]
            self._write(path, b"".join(pages))
        else:
            different = [file for file in files if file.read_bytes() != data]
            other = self._chance.choice(different)
            self._write(path, other.read_bytes())
            self._write(other, data)
        return [path for path, _, _ in self._kept]

    def _write(self, path: Path, data: bytes) -> None:
        facts = path.stat()
        self._kept.append((path, path.read_bytes(), facts))
        self._store(path, data, facts)

    def take_back(self) -> None:
        """Make all as it was."""
        for file in self._registry.root.glob("registry.sqlite3-*"):
            file.unlink()
        for path, data, facts in self._kept:
            self._store(path, data, facts)
        self._kept.clear()

    @staticmethod
    def _store(path: Path, data: bytes, facts: os.stat_result) -> None:
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(facts.st_mode)
        # A bad disk does not change times.
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def look(home: Path, touched: list[Path]) -> Iterator[Finding]:
    """What fsck says, of the files only these. An error that it ends with is a finding."""
    registry = LocalRegistry(home)
    try:
        yield from registry.check(bases=False, only=[f"sha256:{path.name}" for path in touched])
    except AdzError as error:
        yield Finding("fsck", error.message)
    finally:
        connection = getattr(registry.database._local, "connection", None)
        if connection is not None:
            connection.close()


def users(registry: LocalRegistry) -> dict[str, set[str]]:
    """Which live versions need which stored file, by what their manifests say."""
    found: dict[str, set[str]] = {}
    for version in registry.versions():
        records = version.manifest.files.values()
        for digest in {version.digest, *(record.sha256 for record in records)}:
            found.setdefault(digest, set()).add(version.reference)
    settle(registry)
    return found


def find_damages(batch: int, stored: Path) -> tuple[Counter[str], Counter[str]]:
    """Put one damage after the other on a copy of a home; return how many of each kind were found,
    and how many hit bytes that hold nothing."""
    home = stored.with_name(f"batch-{batch}")
    shutil.copytree(stored, home)
    registry, chance = LocalRegistry(home), random.Random(batch)
    damage, needed = Damage(registry, chance), users(registry)
    before, events = contents(registry.database.path), registry.database.journal.read()
    assert not list(look(home, []))
    found: Counter[str] = Counter()
    nothing: Counter[str] = Counter()
    while found.total() < min(BATCH, DAMAGES):
        what = ("file", "journal", "database", "view")[found.total() % 4]
        how = chance.choice(HOW)
        touched = damage.put(what, how)
        findings = list(look(home, touched))
        if findings:
            found[f"{what} {how}"] += 1
            check_names(what, touched, findings, needed)
        elif what == "database" and contents(registry.database.path) == before:
            # It hit bytes that hold nothing.
            nothing[f"{what} {how}"] += 1
        else:
            assert what == "journal", (batch, what, how, touched)
            assert registry.database.journal.read() == events, (batch, what, how)
            nothing[f"{what} {how}"] += 1
        damage.take_back()
    assert not list(look(home, list(registry.blobs.directory.iterdir())))
    shutil.rmtree(home)
    return found, nothing


def test_every_damage_is_found(stored: LocalRegistry, home: Path) -> None:
    found: Counter[str] = Counter()
    nothing: Counter[str] = Counter()
    batches = range(math.ceil(DAMAGES / BATCH))
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fork) as pool:
        for counts in pool.map(functools.partial(find_damages, stored=home), batches):
            found += counts[0]
            nothing += counts[1]
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(found.items()))
    unused = f"{nothing.total()} more hit bytes of the database that hold nothing"
    print(f"\nfigure: {found.total()} damages found ({kinds}); {unused}")
    assert found.total() >= DAMAGES
    # Most pages of the database hold something, and all of every other file does.
    assert set(nothing) <= {"database flip", "database swap", "database cut"}
    assert found["database flip"] > nothing["database flip"] / 9


def test_a_flipped_name_of_an_index_that_sqlite_made_is_found(
    stored: LocalRegistry, home: Path
) -> None:
    path = stored.database.path
    data = bytearray(path.read_bytes())
    at = data.index(b"sqlite_autoindex_") + len(b"sqlite_autoindex_")
    # The case of a letter: SQLite itself finds such a name all the same.
    data[at] ^= 0x20
    path.write_bytes(data)
    assert list(look(home, []))


def check_names(
    what: str, touched: list[Path], findings: list[Finding], needed: dict[str, set[str]]
) -> None:
    if what == "file":
        for path in touched:
            [finding] = [f for f in findings if f.digest == f"sha256:{path.name}"]
            assert set(finding.versions) == needed.get(f"sha256:{path.name}", set())
    if what == "view":
        folders = {f"sha256:{path.parent.name}" for path in touched}
        assert {f.digest for f in findings if f.kind == "view"} == folders


@pytest.mark.parametrize("batch", range(3))
def test_a_whole_check_finds_all_at_once(
    stored: LocalRegistry, home: Path, commit: Callable[..., Any], batch: int
) -> None:
    chance = random.Random(batch)
    blobs = sorted(stored.blobs.directory.iterdir())
    damaged = chance.sample(blobs, len(blobs) // 2)
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.chmod(0o644)
        path.write_bytes(bytes(data))
    named = {f.digest for f in LocalRegistry(home).check(bases=False) if f.kind == "file"}
    assert named == {f"sha256:{path.name}" for path in damaged}
