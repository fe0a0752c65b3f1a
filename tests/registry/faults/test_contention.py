"""Many processes on one registry: TEST_COMMITS commits by each of 16 writers, and `gc` against 8
committers and 4 readers for TEST_GC_SECONDS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterhub_registry.store import LocalRegistry

COMMITS = int(os.environ.get("TEST_COMMITS", "5"))
GC_SECONDS = float(os.environ.get("TEST_GC_SECONDS", "5"))
CONTEND = Path(__file__).with_name("contend.py")


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, CONTEND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    return json.loads(out or "null")


def test_many_processes_may_open_a_new_registry_at_once(tmp_path: Path) -> None:
    finish(start("open", tmp_path, 15, 10))


def test_sixteen_writers_get_gapless_unique_numbers(
    home: Path, make_payload: Callable[..., Path]
) -> None:
    writers = [start("write", home, make_payload(), 4, COMMITS) for _ in range(4)]
    answers = [finish(writer) for writer in writers]
    assert [answer["errors"] for answer in answers] == [[]] * 4
    numbers = [number for answer in answers for number in answer["numbers"]]
    assert sorted(numbers) == list(range(1, 16 * COMMITS + 1))
    print(f"\nfigure: 16 writers, {len(numbers)} versions")
    registry = LocalRegistry(home)
    assert [v.number for v in registry.versions("sql")] == sorted(numbers)
    assert not list(registry.check())


def test_gc_against_committers_and_readers_leaves_no_dangling_reference(
    home: Path, make_payload: Callable[..., Path]
) -> None:
    home.mkdir()
    payloads = [make_payload(seed) for seed in range(16)]
    answers = finish(start("race", home, GC_SECONDS, *payloads))
    committed = [did["commits"] for kind, did in answers if kind == "churn"]
    opened = [did["opened"] for kind, did in answers if kind == "read"]
    [collected] = [did for kind, did in answers if kind == "collect"]
    print(
        f"\nfigure: {GC_SECONDS:.0f} s, {sum(committed)} commits, {sum(opened)} reads, "
        f"{collected['turns']} collections of {collected['blobs']} files"
    )
    # A collector that found nothing to take, and readers that read nothing, would prove nothing.
    assert collected["blobs"] > 0
    assert all(opened)
    assert all(committed)
    registry = LocalRegistry(home)
    assert not list(registry.check())
    for name, count in zip((f"n{number}" for number in range(8)), committed, strict=True):
        assert registry.resolve(name).number == count
        registry.path(registry.resolve(f"{name}@prod"))
