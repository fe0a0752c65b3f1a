"""What a kill cannot show: that every byte is on the disk before it is relied upon."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub_registry import disk

Operations = list[tuple[str, Path, Path | None]]


@pytest.fixture
def operations(registry: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operations]:
    """Every effect on the file system, in order: (function, path, second path), and SQLite's
    commits as ("COMMIT", database, None)."""
    done: Operations = []

    def record(name: str, function: Any) -> Any:
        def run(path: Path, *rest: Any) -> Any:
            second = rest[0] if rest and isinstance(rest[0], Path) else None
            done.append((name, path, second))
            return function(path, *rest)

        return run

    for name in ("write", "copy", "append", "protect", "sync", "rename"):
        monkeypatch.setattr(disk, name, record(name, getattr(disk, name)))
    with registry.database.reading() as connection:
        connection.set_trace_callback(
            lambda statement: (
                done.append(("COMMIT", registry.database.path, None))
                if statement == "COMMIT"
                else None
            )
        )
    yield done
    connection.set_trace_callback(None)


def last(operations: Operations, name: str, path: Path) -> int:
    return max(i for i, (n, p, _) in enumerate(operations) if (n, p) == (name, path))


def moved_to(operations: Operations, blobs: Path) -> list[tuple[int, Path, Path]]:
    """When which file was moved to which blob."""
    return [(i, p, t) for i, (n, p, t) in enumerate(operations)
            if n == "rename" and t and t.parent == blobs]  # fmt: skip


def require_synced(operations: Operations, moved: list[tuple[int, Path, Path]]) -> None:
    """Each file was on the disk, after its last change, before it was moved."""
    for position, staged, _ in moved:
        changes = [
            i
            for i, (n, p, t) in enumerate(operations)
            if (n in ("write", "protect") and p == staged) or (n == "copy" and t == staged)
        ]
        assert max(changes) < last(operations, "sync", staged) < position


def test_every_effect_is_a_function_that_the_tests_know() -> None:
    public = {n for n, f in inspect.getmembers(disk, inspect.isfunction) if not n.startswith("_")}
    own = {n for n in public if getattr(disk, n).__module__ == disk.__name__}
    assert own == {
        "append", "copy", "lease", "lock", "make_directory", "make_lasting_directory", "protect",
        "remove", "rename", "sync", "truncate", "write",
    }  # fmt: skip


def test_a_commit_syncs_in_order(operations: Operations, commit: Any, registry: Any) -> None:
    version = commit()
    blobs = registry.blobs.directory
    moved = moved_to(operations, blobs)
    digests = {f.sha256 for f in version.manifest.files.values()} | {version.digest}
    assert {f"sha256:{target.name}" for _, _, target in moved} == digests
    require_synced(operations, moved)
    journal = registry.database.journal.path
    order = [
        max(position for position, _, _ in moved),
        last(operations, "sync", blobs),
        last(operations, "append", journal),
        last(operations, "sync", journal),
        last(operations, "COMMIT", registry.database.path),
    ]
    assert order == sorted(order)


def test_a_manifest_with_another_number_is_synced_too(
    operations: Operations, commit: Any, registry: Any, hook: Any
) -> None:
    seeds = iter([1])
    hook(lambda manifest: [commit(seed=seed) for seed in seeds])
    version = commit()
    assert version.number == 2
    moved = moved_to(operations, registry.blobs.directory)
    assert len(moved) == 6
    require_synced(operations, moved)


@pytest.mark.parametrize("action", ["tag", "rollback", "untag", "remove", "attest", "add_base"])
def test_every_change_is_in_the_journal_before_it_is_committed(
    operations: Operations, commit: Any, registry: Any, make_base: Any, action: str
) -> None:
    version = commit()
    commit()
    registry.tag("sql@1", "prod")
    registry.tag("sql@2", "prod")
    record = make_base()
    operations.clear()
    {
        "tag": lambda: registry.tag("sql@1", "prod"),
        "rollback": lambda: registry.rollback("sql", "prod"),
        "untag": lambda: registry.untag("sql", "prod"),
        "remove": lambda: registry.remove("sql@1"),
        "attest": lambda: registry.attest(version, "eval", {}),
        "add_base": lambda: registry.add_base(record),
    }[action]()
    assert [name for name, _, _ in operations] == ["append", "sync", "COMMIT"]


def test_a_view_is_on_the_disk_before_it_is_noted_as_verified(
    operations: Operations, commit: Any, registry: Any
) -> None:
    version = commit()
    operations.clear()
    view = registry.path(version)
    made = last(operations, "rename", next(p for n, p, t in operations if t == view))
    noted = last(
        operations, "rename", next(p for n, p, t in operations if t == view.with_suffix(".json"))
    )
    copies = [t for n, _, t in operations if n == "copy"]
    assert len(copies) == 2
    for copied in copies:
        assert copied is not None
        assert last(operations, "sync", copied) < made
    staged = operations[made][1]
    assert max(last(operations, "sync", t) for t in copies if t) < last(operations, "sync", staged)
    assert last(operations, "sync", staged) < made
    assert made < noted


def test_sqlite_waits_for_the_disk(registry: Any) -> None:
    with registry.database.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
