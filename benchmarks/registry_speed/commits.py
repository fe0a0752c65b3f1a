"""A commit beside a plain copy of the same files, and commits by many writers at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

from adapterhub_registry.store import LocalRegistry
from registry_speed import adapters
from registry_speed.timing import after_sync, median, seconds

Figures = dict[str, Any]


def beside_copy(directory: Path, rounds: int) -> Figures:
    """Medians in milliseconds of a commit and of copy, fsync and sha256, in turns.

    Each commit is of bytes that the registry does not have: the adapter's last value differs.
    """
    payload, base = adapters.large(directory)
    weights = payload / "adapter_model.safetensors"
    registry = LocalRegistry(directory / "home-large")
    registry.add_base(base)
    parts: dict[str, list[float]] = {"copy": [], "fsync": [], "sha256": []}
    commits, copies = [], []
    for index in range(rounds + 1):
        _change_last_value(weights, index)
        os.sync()
        found = _copy(weights, directory / f"copy-{index}")
        manifest = adapters.manifest("large", base)
        taken = after_sync(lambda manifest=manifest: registry.commit(manifest, payload))
        # The first of each warms the page cache.
        if index:
            commits.append(taken)
            copies.append(sum(found.values()))
            for name, value in found.items():
                parts[name].append(value)
    return {
        "mib": weights.stat().st_size / 2**20,
        "commit": median(commits),
        "copy": median(copies),
        "parts": {name: median(values) for name, values in parts.items()},
        "ratio": median(commits) / median(copies),
    }


def by_writers(directory: Path, writers: int, commits: int) -> Figures:
    """`commits` adapters of 1.2 MiB committed to one name by so many processes at once:
    `{"per_second": ..., "numbers": the numbers that they were given}`."""
    (payload, *_), base = adapters.small(directory / f"writers-{writers}", 1)
    home = directory / f"home-{writers}-writers"
    LocalRegistry(home).add_base(base)
    context = multiprocessing.get_context("spawn")
    ready, numbers = context.Barrier(writers + 1), context.Queue()
    each = commits // writers
    given = [(home, payload, base, each, ready, numbers) for _ in range(writers)]
    processes = [context.Process(target=_write, args=arguments) for arguments in given]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    found = [number for _ in processes for number in numbers.get()]
    taken = time.perf_counter() - start
    for process in processes:
        process.join()
    return {"per_second": len(found) / taken, "numbers": found}


def _write(home: Path, source: Path, base: Any, count: int, ready: Any, numbers: Any) -> None:
    registry = LocalRegistry(home)
    payload = home / f"payload-{os.getpid()}"
    shutil.copytree(source, payload)
    weights = payload / "adapter_model.safetensors"
    ready.wait()
    found = []
    for index in range(count):
        _change_last_value(weights, os.getpid() * 1000 + index)
        found.append(registry.commit(adapters.manifest("shared", base), payload).number)
    numbers.put(found)


def _copy(source: Path, target: Path) -> dict[str, float]:
    """Seconds to copy a file as `cp` does, to bring it to the disk, and to hash it."""
    found = {"copy": seconds(lambda: shutil.copyfile(source, target))}
    with target.open("rb+") as file:
        found["fsync"] = seconds(lambda: os.fsync(file.fileno()))
        found["sha256"] = seconds(lambda: hashlib.file_digest(file, "sha256"))
    target.unlink()
    return found


def _change_last_value(weights: Path, seed: int) -> None:
    # Small numbers in bf16 and in fp32, other ones for each seed.
    with weights.open("rb+") as file:
        file.seek(-4, os.SEEK_END)
        file.write((seed % 0x3000).to_bytes(2, "little") + b"\x01\x3c")
