"""A full or failing disk at every call in turn: nothing half stored, the next try works."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub_registry import disk
from adapterhub_registry.store import LocalRegistry

EFFECTS = ("append", "copy", "make_directory", "protect", "remove", "rename", "sync", "write")


class Fault:
    """Makes the n-th effect from now on fail; `calls` counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.at = 0
        self.number = errno.ENOSPC
        self.late = False
        for name in EFFECTS:
            monkeypatch.setattr(disk, name, self._wrap(getattr(disk, name)))

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(path: Path, *rest: Any) -> Any:
            self.calls += 1
            failing = self.calls == self.at
            if failing and not self.late:
                raise OSError(self.number, os.strerror(self.number), str(path))
            result = function(path, *rest)
            if failing:
                raise OSError(self.number, os.strerror(self.number), str(path))
            return result

        return run

    def arm(self, at: int) -> None:
        self.calls, self.at = 0, at


@pytest.fixture
def fault(registry: Any, monkeypatch: pytest.MonkeyPatch) -> Fault:
    return Fault(monkeypatch)


def state(registry: Any) -> Any:
    with registry.database.reading() as connection:
        rows = connection.execute("SELECT name, number, digest, state FROM versions").fetchall()
        aliases = connection.execute("SELECT * FROM aliases").fetchall()
    return [tuple(row) for row in rows], [tuple(row) for row in aliases]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_any_call_leaves_the_store_clean(
    fault: Fault, commit: Any, registry: Any, number: int, late: bool
) -> None:
    fault.number, fault.late = number, late
    commit(seed=1), commit(seed=2)
    registry.tag("sql@1", "prod")
    actions: dict[str, Callable[[int], Any]] = {
        "commit": lambda n: commit("sql", seed=100 + n),
        "tag": lambda n: registry.tag(f"sql@{2 + n % 2}", "prod"),
        "attest": lambda n: registry.attest(registry.resolve("sql@1"), "eval", {"n": n}),
        "path": lambda n: registry.path(commit("view", seed=200 + n)),
        "remove": lambda n: registry.remove("sql@latest"),
    }
    for name, action in actions.items():
        failures = 0
        for at in range(1, 100):
            before = state(registry)
            fault.arm(at)
            try:
                action(at)
            except (OSError, AdzError):
                failures += 1
                fault.arm(0)
                # `path` commits first, and that may have succeeded.
                if name != "path":
                    assert state(registry) == before, f"{name}, call {at}"
            if fault.calls < at and fault.at:
                break
            fault.arm(0)
            assert not list(registry.check()), f"{name}, call {at}"
        else:
            pytest.fail(f"{name} never came to its end")
        assert failures >= 2, name
    fault.arm(0)
    registry.collect(grace_seconds=0, retention_seconds=0)
    assert not list(registry.ingest.iterdir())
    assert not list(registry.check())
    numbers = [row[1] for row in state(registry)[0] if row[0] == "sql"]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    rebuilt_from = state(registry)
    registry.database.path.unlink()
    assert state(LocalRegistry(registry.root.parent)) == rebuilt_from


@pytest.mark.parametrize("effect", ["copy", "sync", "rename", "append"])
def test_an_interrupt_leaves_the_store_clean(
    commit: Any, registry: Any, monkeypatch: pytest.MonkeyPatch, effect: str
) -> None:
    commit()
    before = state(registry)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(disk, effect, interrupt)
        with pytest.raises(KeyboardInterrupt):
            commit(seed=1)
    assert state(registry) == before
    assert not list(registry.ingest.iterdir())
    assert not list(registry.check())
    assert commit(seed=1).number == 2


def test_a_full_database_is_one_clear_line(commit: Any, registry: Any) -> None:
    commit()
    with registry.database.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for _ in range(50):
            commit()

    with pytest.raises(AdzError, match="no space left on device"):
        fill()
    with registry.database.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert not list(registry.check())
    stored = len(registry.versions("sql"))
    assert commit().number == stored + 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB. Mounting needs root; the tests above need nothing."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_really_fills(tiny_disk: Path, make_payload: Any, make_manifest: Any) -> None:
    registry = LocalRegistry(tiny_disk)
    stored: list[str] = []

    def fill() -> None:
        for seed in range(400):
            stored.append(registry.commit(make_manifest(), make_payload(seed)).digest)

    with pytest.raises((OSError, AdzError), match=r"(?i)no space left on device"):
        fill()
    assert stored
    assert [v.digest for v in registry.versions("sql")] == stored
    assert not list(registry.check())
    assert not list(registry.ingest.iterdir())
