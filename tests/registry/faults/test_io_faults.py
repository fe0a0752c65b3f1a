"""A full or failing disk at every call of the C library: nothing half stored, the next try works.

TEST_FAULT_STRIDE: every how many-th call is tried; 1 tries all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import shim as shims
from exchanging import ExchangingWorkload
from workload import NAMES, base, manifest

from adapterhub.errors import AdzError
from adapterhub_registry import disk
from adapterhub_registry.store import LocalRegistry

STRIDE = int(os.environ.get("TEST_FAULT_STRIDE", "61"))
INJECT = Path(__file__).with_name("inject.py")
KINDS = (
    "commit", "overtaken", "tag", "rollback", "untag", "attest", "base", "remove base", "remove",
    "remove name", "restore", "gc", "view", "heal", "rebuild", "lease", "reopen", "push",
    "push alias", "pull", "pull alias", "pull back",
)  # fmt: skip


@pytest.fixture
def template(scratch: Path, payloads: Path) -> Path:
    """A folder in which every kind of change has something to do."""
    folder = scratch / "template"
    work = ExchangingWorkload(folder, payloads, 0)
    registry = work.registry
    for name, payload in zip(NAMES, sorted(payloads.iterdir()), strict=False):
        first = registry.commit(manifest(name), payload)
        registry.commit(manifest(name), payloads / "3")
        registry.remove(f"{name}@2")
        registry.tag(registry.commit(manifest(name), payload).reference, "prod")
        registry.tag(first.reference, "prod")
    registry.add_base(base("llama"))
    for reference in ("sql@1", "sql@3", "other@3", "other@prod"):
        work.push(reference)
    work.pull(work.mirror, "other@1")
    # It can come back.
    registry.remove("sql@3")
    return folder


@pytest.mark.parametrize("fault", ["ENOSPC", "ENOSPC+", "EIO", "EIO+", "EINTR", "SHORT"])
def test_a_fault_at_any_call_leaves_the_store_clean(
    shim: Path, template: Path, payloads: Path, scratch: Path, fault: str
) -> None:
    workers = os.cpu_count() or 1

    def inject(number: int) -> str:
        own = scratch / str(number)
        own.mkdir()
        kinds = KINDS[number::workers]
        arguments = [template, payloads, own, fault, str(STRIDE), *kinds]
        return shims.run(shim, INJECT, arguments, seconds=7200)

    with ThreadPoolExecutor(workers) as pool:
        lines = "".join(pool.map(inject, range(workers))).splitlines()
    results = {line["kind"]: line for line in map(json.loads, lines)}
    assert results.keys() == set(KINDS)
    tried, sites = (sum(r[key] for r in results.values()) for key in ("tried", "sites"))
    print(f"\nfigure: {fault} at {tried} of {sites} calls")
    for kind, result in results.items():
        assert result["tried"] >= result["sites"] // STRIDE, kind
        assert 0 < result["hit"] == result["tried"] - result["beyond"], kind
        assert result["beyond"] <= max(1, result["tried"] // 50), kind
        # Errors that nobody noticed would prove nothing.
        if STRIDE == 1 and fault.endswith("+"):
            assert result["failed"] >= result["tried"] / 2, (kind, result)
    if STRIDE == 1 and fault == "EIO":
        # SQLite gets over many that stay alone: a look at its log, a lock, a file's size.
        assert sum(result["failed"] for result in results.values()) >= tried / 3


def state(registry: Any) -> Any:
    with registry.database.reading() as connection:
        rows = connection.execute("SELECT name, number, digest, state FROM versions").fetchall()
        aliases = connection.execute("SELECT * FROM aliases").fetchall()
    return [tuple(row) for row in rows], [tuple(row) for row in aliases]


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
