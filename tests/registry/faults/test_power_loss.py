"""A power loss at any moment: every prefix of the recorded changes of the disk, with what no
fsync had made safe dropped, whole or in part. TEST_POWER_SCRIPTS scripts of up to
TEST_POWER_STEPS operations; every call of `disk.sync` is needed by one of them."""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import power
import pytest
import shim as shims
from workload import EVERYTHING, manifest, snapshot, wrong

import adapterhub_registry
from adapterhub_registry.store import LocalRegistry

SCRIPTS = int(os.environ.get("TEST_POWER_SCRIPTS", "1"))
STEPS = int(os.environ.get("TEST_POWER_STEPS", "12"))
CHOICES = int(os.environ.get("TEST_POWER_CHOICES", "2"))
RECORD = Path(__file__).with_name("record.py")
SOURCE = Path(adapterhub_registry.__file__).parent

Recorder = Callable[..., list[tuple[list[power.Operation], Path]]]


@pytest.fixture
def record(shim: Path, payloads: Path, tmp_path: Path) -> Recorder:
    """Record jobs; each gives its operations and the folder that they were done in."""

    def run(jobs: list[dict[str, Any]]) -> list[tuple[list[power.Operation], Path]]:
        folders = [tmp_path / f"job-{number}" for number in range(len(jobs))]
        for folder in folders:
            folder.mkdir()
        described = [
            {
                "home": str(folder), "out": f"{folder}.record", "payloads": str(payloads),
                "without": None, "kinds": None, **job,
            }
            for job, folder in zip(jobs, folders, strict=True)
        ]  # fmt: skip
        list_of_jobs = tmp_path / "jobs.json"
        list_of_jobs.write_text(json.dumps(described))
        shims.run(shim, RECORD, [list_of_jobs], seconds=600)
        return [(power.read_record(Path(f"{folder}.record")), folder) for folder in folders]

    return run


def problems(
    operations: list[power.Operation], folder: Path, scratch: Path, seed: int
) -> Iterator[str]:
    """What is wrong after each crash; an empty text for what is right."""
    chance = random.Random(seed)
    inode = folder.stat().st_ino
    crashes = power.crashes(operations, folder, inode, chance, CHOICES)
    for number, (state, before, after) in enumerate(crashes):
        shutil.rmtree(scratch, ignore_errors=True)
        power.write_state(state, scratch)
        payload = next((folder.parent / "payloads").iterdir())
        yield problem(scratch / "home", before, after, payload if number % 10 == 0 else None)


def problem(home: Path, before: Any, after: Any, payload: Path | None) -> str:
    registry = LocalRegistry(home)
    try:
        found = json.loads(json.dumps(snapshot(registry)))
        findings = wrong(registry)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    expected = [note[1] for note in (before, after)]
    if after[0] == "rebuild":
        # Its journal was damaged before.
        findings = [f for f in findings if f.subject != "names.jsonl"]
        payload = None
    if found not in expected:
        return f"{after[0]}: {found} is neither of {expected}"
    if findings:
        return f"{after[0]}: {findings}"
    return usable(registry, home, payload) if payload else ""


def usable(registry: LocalRegistry, home: Path, payload: Path) -> str:
    """The next commit works, and so does a rebuild from the journal alone."""
    version = registry.tag(registry.commit(manifest("sql"), payload).reference, "prod")
    registry.collect(grace_seconds=0, retention_seconds=0)
    findings = wrong(registry)
    if findings:
        return f"after the next commit: {findings}"
    now = snapshot(registry)
    registry.database.path.unlink()
    if snapshot(LocalRegistry(home)) != now or version.reference not in str(now):
        return "rebuilt from the journal, the registry says something else"
    return ""


def sync_sites() -> list[tuple[str, int]]:
    """Every call of `disk.sync` in the registry."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("disk.sync", "sync"):
                found.append((file.name, node.lineno))
    return found


def test_nothing_acknowledged_is_lost(record: Recorder, scratch: Path) -> None:
    jobs: list[dict[str, Any]] = [{"seed": 0, "kinds": EVERYTHING}]
    jobs += [{"seed": seed, "steps": STEPS} for seed in range(1, SCRIPTS)]
    states = 0
    for seed, (operations, folder) in enumerate(record(jobs)):
        for text in problems(operations, folder, scratch / "state", seed):
            states += 1
            assert not text, f"script {seed}, state {states}: {text}"
    operations_done = len(EVERYTHING) + STEPS * (SCRIPTS - 1)
    print(f"\nfigure: {states} states after {operations_done} operations in {SCRIPTS} scripts")
    assert states > 5 * STEPS * SCRIPTS


def test_every_fsync_is_needed(record: Recorder, scratch: Path) -> None:
    sites = sync_sites()
    jobs = [{"seed": 0, "kinds": EVERYTHING, "without": site} for site in sites]
    unneeded = []
    for site, (operations, folder) in zip(sites, record(jobs), strict=True):
        if not any(problems(operations, folder, scratch / "state", 0)):
            unneeded.append(site)
    print(f"\nfigure: {len(sites) - len(unneeded)} of {len(sites)} fsyncs left out are noticed")
    assert not unneeded, "nothing is lost without these"
    assert len(sites) > 5
