"""Killed writers and many writers: nothing acknowledged is lost, numbers have no gap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from adapterhub_registry.store import LocalRegistry

KILLS = int(os.environ.get("TEST_KILLS", "200"))
DRIVER = Path(__file__).with_name("crash_driver.py")

WRITER = """
import sys
from pathlib import Path
from adapterhub.manifest import BaseLink, Manifest
from adapterhub_registry.store import LocalRegistry

registry = LocalRegistry(Path(sys.argv[1]))
manifest = Manifest(name="sql", method="lora", made_by="import", base=BaseLink(status="unknown"))
for _ in range(int(sys.argv[3])):
    print(registry.commit(manifest, Path(sys.argv[2])).number)
"""

OPENERS = """
import os, sys, time
from pathlib import Path
from adapterhub_registry.store import LocalRegistry

failed = 0
for turn in range(40):
    begin = time.time() + 0.02
    children = []
    for _ in range(10):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                while time.time() < begin:
                    pass
                LocalRegistry(Path(sys.argv[1], str(turn))).names()
                status = 0
            except BaseException as error:
                print(error, flush=True)
            os._exit(status)
        children.append(child)
    failed += sum(os.waitpid(child, 0)[1] != 0 for child in children)
sys.exit(failed > 0)
"""

COLLECTOR = """
import sys
from pathlib import Path
from adapterhub_registry.store import LocalRegistry

registry = LocalRegistry(Path(sys.argv[1]))
print("ready", flush=True)
collected = 0
while not Path(sys.argv[2]).exists():
    for name in registry.names():
        numbers = [version.number for version in registry.versions(name)]
        for number in numbers[:-1]:
            registry.remove(f"{name}@{number}")
    collected += registry.collect(grace_seconds=0, retention_seconds=0).blobs
print(collected)
"""

CHURNER = """
import shutil, sys
from pathlib import Path
from adapterhub.manifest import BaseLink, Manifest
from adapterhub_registry.store import LocalRegistry

home, first, second, name = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
registry = LocalRegistry(home)
manifest = Manifest(name=name, method="lora", made_by="import", base=BaseLink(status="unknown"))
for turn in range(30):
    # Each payload is abandoned and wanted again, by three processes out of step.
    registry.commit(manifest, (first, second)[turn % 2])
"""


def test_kills_lose_nothing_that_was_acknowledged(home: Path, make_payload: Any) -> None:
    done = subprocess.run(
        [sys.executable, DRIVER, home, make_payload(), str(KILLS), "1"],
        capture_output=True, text=True, check=False, timeout=300 + KILLS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    acknowledged = json.loads(done.stdout)
    commits = {number: digest for kind, number, *rest in acknowledged if kind == "commit"
               for digest in rest}  # fmt: skip
    tags = [number for kind, number, *_ in acknowledged if kind == "tag"]
    registry = LocalRegistry(home)
    # Kills that hit no commit half-way would prove nothing.
    assert len(list(registry.ingest.iterdir())) > KILLS / 10
    assert len(commits) > KILLS / 10

    assert not list(registry.check())
    versions = {v.number: v.digest for v in registry.versions("sql")}
    assert sorted(versions) == list(range(1, len(versions) + 1))
    assert {number: versions.get(number) for number in commits} == commits
    moves = [e.version for e in registry.log("sql") if e.action == "tag"]
    assert Counter(tags) - Counter(moves) == Counter()
    assert registry.resolve("sql@prod").number == moves[-1]
    registry.path(registry.resolve("sql"))

    registry.database.path.unlink()
    rebuilt = {v.number: v.digest for v in LocalRegistry(home).versions("sql")}
    # The last change may have been written down but not committed when it was killed.
    assert rebuilt.items() >= versions.items()
    assert len(rebuilt) <= len(versions) + 1


def test_many_processes_may_open_a_new_registry_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPENERS, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_eight_writers_get_gapless_unique_numbers(home: Path, make_payload: Any) -> None:
    command = [sys.executable, "-c", WRITER, str(home), str(make_payload()), "5"]
    writers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    numbers = []
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err
        numbers += [int(line) for line in out.split()]
    assert sorted(numbers) == list(range(1, 41))
    registry = LocalRegistry(home)
    assert [v.number for v in registry.versions("sql")] == list(range(1, 41))
    assert not list(registry.check())


def test_gc_against_committers_leaves_no_dangling_reference(
    home: Path, make_payload: Any, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    collector = subprocess.Popen(
        [sys.executable, "-c", COLLECTOR, home, stop],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert collector.stdout is not None
    assert collector.stdout.readline() == "ready\n"
    payloads = [str(make_payload(seed)) for seed in (1, 2)]
    committers = [
        subprocess.Popen(
            [sys.executable, "-c", CHURNER, home, *payloads, name],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two", "three")
    ]
    for committer in committers:
        _, err = committer.communicate(timeout=120)
        assert committer.returncode == 0, err
    stop.touch()
    collected, err = collector.communicate(timeout=60)
    assert collector.returncode == 0, err
    # A collector that found nothing to take would prove nothing.
    assert int(collected) > 0
    registry = LocalRegistry(home)
    assert not list(registry.check())
    for name in ("one", "two", "three"):
        assert registry.resolve(name).number == 30
        registry.path(registry.resolve(name))
