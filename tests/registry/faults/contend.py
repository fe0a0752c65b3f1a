"""Parts of processes that work on one registry at once; run as `contend.py PART HOME ...`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapterhub.errors import AdzError
from adapterhub.manifest import BaseLink, Manifest
from adapterhub_registry.store import LocalRegistry


def manifest(name: str) -> Manifest:
    return Manifest(name=name, method="lora", made_by="import", base=BaseLink(status="unknown"))


def write(home: str, payload: str, threads: str, count: str) -> None:
    """Commit `count` versions on each of `threads` threads; print their numbers."""
    registry, numbers, errors = LocalRegistry(Path(home)), [], []

    def commit() -> None:
        try:
            for _ in range(int(count)):
                numbers.append(registry.commit(manifest("sql"), Path(payload)).number)
        except Exception as error:
            errors.append(repr(error))

    working = [threading.Thread(target=commit) for _ in range(int(threads))]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    print(json.dumps({"numbers": numbers, "errors": errors}))


def open_at_once(folder: str, turns: str, processes: str) -> None:
    """Let processes open a registry that is not there yet, all at one moment."""
    failed = 0
    for turn in range(int(turns)):
        begin = time.time() + 0.02
        children = []
        for _ in range(int(processes)):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    while time.time() < begin:
                        pass
                    LocalRegistry(Path(folder, str(turn))).names()
                    status = 0
                except BaseException as error:
                    print(repr(error), flush=True)
                os._exit(status)
            children.append(child)
        failed += sum(os.waitpid(child, 0)[1] != 0 for child in children)
    sys.exit(failed > 0)


def churn(home: str, stop: str, name: str, *payloads: str) -> None:
    """Commit payloads that are abandoned and wanted again, and remove all but the newest."""
    registry, turn = LocalRegistry(Path(home)), 0
    while not Path(stop).exists():
        version = registry.commit(manifest(name), Path(payloads[turn % len(payloads)]))
        registry.tag(version.reference, "prod")
        if version.number > 1:
            registry.remove(f"{name}@{version.number - 1}")
        turn += 1
    print(json.dumps({"commits": turn}))


def read(home: str, stop: str, *names: str) -> None:
    """Open whatever is newest, lease it, and read every file; what is gone must be removed."""
    registry, opened, missed = LocalRegistry(Path(home)), 0, 0
    holder = f"reader-{os.getpid()}"
    while not Path(stop).exists():
        for name in names:
            try:
                version = registry.resolve(f"{name}@prod")
                registry.lease([version], holder, 60)
            except AdzError:
                # Not there yet, or removed and collected before it was leased.
                missed += 1
                continue
            folder = registry.path(version)
            for file, record in version.manifest.files.items():
                assert len((folder / file).read_bytes()) == record.size
            assert registry.views.problem(version, trust_times=False) is None
            opened += 1
    print(json.dumps({"opened": opened, "missed": missed}))


def collect(home: str, stop: str) -> None:
    """Collect without any grace, as often as possible."""
    registry, blobs, turns = LocalRegistry(Path(home)), 0, 0
    while not Path(stop).exists():
        blobs += registry.collect(grace_seconds=0, retention_seconds=0).blobs
        turns += 1
    print(json.dumps({"blobs": blobs, "turns": turns}))


def race(home: str, seconds: str, *payloads: str) -> None:
    """8 committers, each with two payloads of its own, 4 readers and a collector, all forked
    from this process, which has imported everything. Prints what each did."""
    stop = Path(home, "stop")
    names = [f"n{number}" for number in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        LocalRegistry(Path(folder)).commit(manifest("warm"), Path(payloads[0]))
    LocalRegistry(Path(home)).names()
    jobs: list[tuple[str, Callable[[], None]]] = [("collect", partial(collect, home, str(stop)))]
    jobs += [("read", partial(read, home, str(stop), *names)) for _ in range(4)]
    jobs += [
        ("churn", partial(churn, home, str(stop), name, *payloads[2 * n : 2 * n + 2]))
        for n, name in enumerate(names)
    ]
    children = [(kind, fork(job)) for kind, job in jobs]
    time.sleep(float(seconds))
    stop.touch()
    answers = []
    for kind, (child, pipe) in children:
        with os.fdopen(pipe, "r") as file:
            answers.append([kind, file.read()])
        assert os.waitpid(child, 0)[1] == 0, answers[-1]
    stop.unlink()
    print(json.dumps([[kind, json.loads(text)] for kind, text in answers]))


def fork(job: Callable[[], None]) -> tuple[int, int]:
    """Run a job in a child; return its process and a pipe with what it prints."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            job()
            sys.stdout.flush()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)
    os.close(writer)
    return child, reader


PARTS: dict[str, Callable[..., None]] = {
    "write": write, "open": open_at_once, "race": race,
}  # fmt: skip

if __name__ == "__main__":
    PARTS[sys.argv[1]](*sys.argv[2:])
