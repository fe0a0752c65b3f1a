#!/usr/bin/env python3
"""What plugins cost: `adz --help` and `adz ls` with none, with 20, and with one whose import takes
5 s; and what that one costs when a command of it is used.

benchmarks/plugins.py [--runs 20] [--plugins 20] [--slow 5]

Each plugin is a distribution of its own with a command, a merge rule and a metric. Calls with and
without them alternate; the median of each is printed, and the difference in milliseconds. The
first call after an installation reads the plugins, and is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGIN = """
import time
time.sleep({seconds})
from adapterhub import hookimpl, specs

@hookimpl
def adapterhub_commands():
    yield specs.Command(name="{name}", summary="A command", impl="{name}:run")

@hookimpl
def adapterhub_merge_rules():
    yield specs.MergeRule(name="{name}", summary="A rule", impl="{name}:merge", spaces=("dense",))

@hookimpl
def adapterhub_metrics():
    yield specs.Metric(name="{name}", summary="A metric", impl="{name}:score")

import click

@click.command()
def run():
    pass
"""


def write_plugin(folder: Path, name: str, seconds: float = 0) -> None:
    """A distribution that can be loaded from `folder`; its import takes that long."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: adapterhub>=0.1,<1\n"
    )
    (info / "entry_points.txt").write_text(f"[adapterhub.plugins]\n{name} = {name}\n")
    (folder / f"{name}.py").write_text(PLUGIN.format(name=name, seconds=seconds))


def measure(arguments: list[str], path: str, folder: Path) -> tuple[float, float]:
    """Milliseconds of one call of `adz`: until it ended, and of a processor."""
    environment = {**os.environ, "PYTHONPATH": path, "ADZ_HOME": str(folder / "home")}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    begun, used = time.perf_counter(), _processor()
    subprocess.run(
        [Path(sys.executable).parent / "adz", *arguments],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    return (time.perf_counter() - begun) * 1000, (_processor() - used) * 1000


def _processor() -> float:
    """Seconds that children have computed."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Print a line for each command and setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--plugins", type=int, default=20)
    parser.add_argument("--slow", type=float, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(options.plugins):
            write_plugin(folder / "many", f"adz_bench_{number}")
        write_plugin(folder / "slow", "adz_bench_slow", options.slow)
        paths = {"no plugin": "", f"{options.plugins} plugins": str(folder / "many")}
        paths[f"one that takes {options.slow:g} s"] = str(folder / "slow")
        for command in (["--help"], ["ls"]):
            for path in paths.values():
                measure(command, path, folder)
            taken: dict[str, list[tuple[float, float]]] = {label: [] for label in paths}
            for _ in range(options.runs):
                for label, path in paths.items():
                    taken[label].append(measure(command, path, folder))
            report(command[0], taken)
        slow = next(reversed(paths))
        used = [measure(["adz_bench_slow"], paths[slow], folder) for _ in range(3)]
        report("used", {slow: used})


def report(command: str, taken: dict[str, list[tuple[float, float]]]) -> None:
    """A line for each setting: medians, and the difference to the first."""
    first: tuple[float, float] | None = None
    for label, values in taken.items():
        wall, processor = (statistics.median(column) for column in zip(*values, strict=True))
        first = first or (wall, processor)
        print(
            f"adz {command:7} {label:22} {wall:7.1f} ms ({wall - first[0]:+6.1f}), "
            f"processor {processor:6.1f} ms ({processor - first[1]:+6.1f})"
        )


if __name__ == "__main__":
    main()
