"""Defaults for vLLM that depend on the machine. They matter on CPUs only."""

from __future__ import annotations

import os
from pathlib import Path

_NODES = Path("/sys/devices/system/node")
_CPUS = Path("/sys/devices/system/cpu")
_MOST_CORES = 8


def cores_to_bind(engines: int = 1) -> str | None:
    """The CPUs for vLLM's threads, `0,1`: one for each physical core that we may use; with
    several engines a part of them for each, `0|1`.

    vLLM keeps one core for its scheduler, which on a small machine costs more than it gains
    (2 cores: 81 tokens/s, both bound 111). None where its own choice is better: many cores,
    several memory nodes, another system than Linux.
    """
    if not hasattr(os, "sched_getaffinity") or len(list(_NODES.glob("node[0-9]*"))) > 1:
        return None
    first_of_core = {_siblings(cpu): cpu for cpu in sorted(os.sched_getaffinity(0), reverse=True)}
    cores = sorted(first_of_core.values())
    if not engines <= len(cores) <= _MOST_CORES:
        return None
    parts = [cores[number::engines] for number in range(engines)]
    return "|".join(",".join(map(str, part)) for part in parts)


def cache_gigabytes(engines: int = 1) -> int:
    """GiB for the KV cache of each engine: together an eighth of the memory that is available,
    1 to 8."""
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES")
        available = pages * os.sysconf("SC_PAGE_SIZE")
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return 1
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    return min(8, max(1, available // 8 // engines // 2**30))


def _siblings(cpu: int) -> str:
    """What the threads of one core have in common; each CPU is a core where that is unknown."""
    path = _CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return str(cpu)
