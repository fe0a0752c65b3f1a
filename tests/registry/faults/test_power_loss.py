"""A power loss at any moment: every prefix of the recorded changes of the disk, with what no
fsync had made safe dropped, whole or in part. TEST_POWER_SCRIPTS scripts, from the number
TEST_POWER_FIRST on: two that are fixed, then random ones of TEST_POWER_STEPS operations.
TEST_POWER_STRIDE: every how many-th state is examined. Every call that syncs is needed by one of
the fixed scripts."""

from __future__ import annotations

import ast
import functools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import shim as shims
from crashes import has_gap, without_syncs
from examine import examine
from exchanging import EXCHANGE
from operations import Operation, read_record
from workload import EVERYTHING

import adapterhub_registry
from adapterhub_remotes import local_files

SCRIPTS = int(os.environ.get("TEST_POWER_SCRIPTS", "2"))
FIRST = int(os.environ.get("TEST_POWER_FIRST", "0"))
STEPS = int(os.environ.get("TEST_POWER_STEPS", "20"))
STRIDE = int(os.environ.get("TEST_POWER_STRIDE", "4"))
RECORD = Path(__file__).with_name("record.py")
SOURCES = (*Path(adapterhub_registry.__file__).parent.rglob("*.py"), Path(local_files.__file__))
SYNCS = ("disk.sync", "sync", "_sync", "staged.sync", "os.fsync")
# Of up to 20 operations each, with every kind at least once.
FIXED = (EVERYTHING, EXCHANGE)

Record = Callable[[list[dict[str, Any]]], list[Path]]


@pytest.fixture
def record(shim: Path, payloads: Path, scratch: Path) -> Record:
    """Record jobs; each gives the folder that it was done in, with the record beside it."""
    shutil.copytree(payloads, scratch / "payloads")

    def run(jobs: list[dict[str, Any]]) -> list[Path]:
        folders = [scratch / f"job-{number}" for number in range(len(jobs))]
        for folder in folders:
            folder.mkdir()
        described = [
            {
                "folder": str(folder), "out": f"{folder}.record", "payloads": f"{scratch}/payloads",
                "seed": 0, "without": None, "kinds": None, "steps": STEPS, **job,
            }
            for job, folder in zip(jobs, folders, strict=True)
        ]  # fmt: skip
        list_of_jobs = scratch / "jobs.json"
        list_of_jobs.write_text(json.dumps(described))
        shims.run(shim, RECORD, [list_of_jobs], seconds=600)
        return folders

    return run


@pytest.fixture
def workers() -> Iterator[ProcessPoolExecutor]:
    """As many processes as there are processors."""
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fork) as pool:
        yield pool


def examined(folder: Path, stride: int) -> tuple[int, str]:
    """How many states of a record were examined until one was wrong, and what was wrong."""
    operations, states = operations_of(folder), 0
    for problem in examine(operations, folder, stride=stride):
        states += 1
        if problem:
            return states, problem
    return states, ""


def is_noticed(folders: tuple[Path, ...]) -> bool:
    """Whether some state is wrong of a record with a gap."""
    records = [(operations_of(folder), folder) for folder in folders]
    return any(
        any(examine(operations, folder)) for operations, folder in records if has_gap(operations)
    )


def operations_of(folder: Path) -> list[Operation]:
    return read_record(Path(f"{folder}.record"))


def sync_sites() -> list[tuple[str, int]]:
    """Every call that syncs in the registry, and in remotes that are directories."""
    found = set()
    for file in sorted(SOURCES):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                # All the others end in the call of the system in one of these.
                own = ("os.fsync",) if function.name in ("sync", "_sync") else ()
                found |= {
                    (file.name, node.lineno)
                    for node in ast.walk(function)
                    if isinstance(node, ast.Call)
                    and ast.unparse(node.func) in SYNCS
                    and ast.unparse(node.func) not in own
                }
    return sorted(found)


def test_nothing_acknowledged_is_lost(record: Record, workers: ProcessPoolExecutor) -> None:
    jobs: list[dict[str, Any]] = [
        {"kinds": FIXED[number]} if number < len(FIXED) else {"seed": number}
        for number in range(FIRST, FIRST + SCRIPTS)
    ]
    work = functools.partial(examined, stride=STRIDE)
    states = 0
    for number, (count, problem) in enumerate(workers.map(work, record(jobs)), FIRST):
        assert not problem, f"script {number}, state {count}: {problem}"
        states += count
    operations = sum(len(job.get("kinds", range(STEPS))) for job in jobs)
    print(f"\nfigure: {states} states of {operations} operations in {len(jobs)} scripts")
    assert states > 20 * operations / STRIDE


def test_every_fsync_is_needed(record: Record, workers: ProcessPoolExecutor) -> None:
    sites = sync_sites()
    folders = iter(record([{"kinds": k, "without": site} for site in sites for k in FIXED]))
    pairs = zip(folders, folders, strict=True)
    noticed = dict(zip(sites, workers.map(is_noticed, pairs), strict=True))
    print(f"\nfigure: {sum(noticed.values())} of {len(sites)} fsyncs left out are noticed")
    assert all(noticed.values()), [site for site in sites if not noticed[site]]
    assert len(sites) > 5


@pytest.mark.parametrize("ending", ["registry.sqlite3", "registry.sqlite3-wal", "names.jsonl"])
def test_a_file_that_is_never_synced_is_noticed(record: Record, ending: str) -> None:
    [folder] = record([{"kinds": EVERYTHING}])
    operations = without_syncs(operations_of(folder), ending)
    assert any(examine(operations, folder))
