"""A disk that is full to the brim: what only reads still works, and so does what frees space."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub_registry import reserve
from adapterhub_registry.store import LocalRegistry


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("MOUNTING A TMPFS IS NOT ALLOWED HERE: nothing is tested on a full disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def home(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADZ_HOME", str(small_disk / "home"))
    return small_disk / "home"


@pytest.fixture
def full(small_disk: Path, registry: Any, commit: Any) -> Path:
    """A registry with sql@1 to 3 there, that nobody has open, and not a byte left."""
    for seed in range(3):
        commit(seed=seed)
    registry.path(registry.resolve("sql@1"))
    registry.tag("sql@1", "prod")
    with registry.database.reading() as connection:
        connection.close()
    assert not list(small_disk.rglob("*-wal"))
    fill(small_disk)
    return small_disk


@pytest.fixture
def run(adz: Any) -> Any:
    """Run `adz` as a process of its own would: no database stays open."""

    def command(*arguments: str) -> Any:
        result = adz(*arguments)
        gc.collect()
        return result

    return command


def fill(folder: Path) -> None:
    with (folder / f"filler-{len(list(folder.iterdir()))}").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            pass
    facts = os.statvfs(folder)
    assert facts.f_bavail == 0


def test_what_only_reads_works(full: Path, run: Any) -> None:
    for arguments, text in {
        ("ls",): "sql",
        ("ls", "--metric", "x"): "",
        ("show", "sql@2"): "sql@2",
        ("log", "sql"): "sql@3",
        ("show", "sql@1", "--path"): "views",
    }.items():
        done = run(*arguments)
        assert "unknown metric" in done.err if "x" in arguments else done.code == 0, done.err
        assert text in done.out
    assert os.statvfs(full).f_bavail == 0


def test_what_frees_space_works_and_what_takes_some_says_so(full: Path, run: Any) -> None:
    done = run("tag", "sql@2", "prod")
    assert done.code == 1
    assert done.err.startswith("adz: ")
    assert done.err.count("\n") == 1
    assert "sql@prod: -> 1" in run("log", "sql").out.splitlines()[-1]
    assert run("rm", "sql@2", "--yes").out == "removed sql@2\n"
    assert run("tag", "--delete", "sql@prod").code == 0
    fill(full)
    # The reserve went with the first; views and what nobody needs are deleted without it.
    done = run("gc", "--grace", "0", "--retention-days", "0")
    assert done.code in (0, 1), done.err
    for filler in full.glob("filler-*"):
        filler.unlink()
    assert run("gc", "--grace", "0", "--retention-days", "0").code == 0
    assert (full / "home" / "registry" / "reserve").stat().st_size == reserve.SIZE
    assert run("fsck").code == 0
    assert run("tag", "sql@3", "prod").code == 0


def test_others_can_use_the_database_right_after(full: Path) -> None:
    """A reader that kept others out would block a server for good."""
    registries = [LocalRegistry(full / "home", busy_seconds=0.1) for _ in range(3)]
    for _ in range(2):
        assert [registry.resolve("sql").number for registry in registries] == [3, 3, 3]
    with registries[0].database.reading() as outer:
        with registries[0].database.reading() as inner:
            assert inner is outer
        assert outer.execute("SELECT count(*) FROM versions").fetchone()[0] == 3
        with pytest.raises(AdzError, match="busy"):
            registries[1].resolve("sql")
    assert registries[1].resolve("sql").number == 3
