"""What the registry costs: a large one, commits, writers, and the peers in the same run.

    python benchmarks/registry.py            # everything: minutes; MLflow is installed below /tmp
    python benchmarks/registry.py lookups commits --versions 10000

Times are wall times on this machine's file system, in process and warm where nothing else is
said. MLflow runs in a virtual environment of its own (`--peer-venv` keeps it).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import file_system, machine  # noqa: E402
from registry_speed import adopting, commits, exchange, lookups, peers  # noqa: E402
from registry_speed.fill import fill  # noqa: E402
from registry_speed.timing import median, p99  # noqa: E402

WRITERS = (1, 4, 16)
LOOKUPS = 300
EXCHANGES = 5
# Milliseconds that a call may take at the median.
ASKED = {"page": 2.0, "filter": 1.0, "resolve": 0.5}


def main() -> None:
    """Measure the parts that were asked for and print them."""
    parts: dict[str, Callable[[Path, argparse.Namespace], None]] = {
        "lookups": print_lookups,
        "commits": print_commits,
        "writers": print_writers,
        "peers": print_peers,
        "exchange": print_exchange,
        "adopt": print_adopt,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="All of them by default.")
    parser.add_argument("--versions", type=int, default=100_000, help="Of the large registry.")
    parser.add_argument("--rounds", type=int, default=15, help="Commits beside copies.")
    parser.add_argument("--commits", type=int, default=96, help="Of all writers together.")
    parser.add_argument("--adapters", type=int, default=40, help="That the peers store.")
    parser.add_argument("--adopted", type=int, default=500, help="That adz adopt takes over.")
    parser.add_argument("--peer-venv", type=Path, help="Where MLflow is, or is installed.")
    parser.add_argument("--folder", type=Path, help="Where to write (default: the system's).")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adz-benchmark-", dir=given.folder) as folder:
        directory = Path(folder)
        print(f"machine: {machine()}, {file_system(directory)}\n")
        for name in given.parts or parts:
            part = directory / name
            part.mkdir()
            parts[name](part, given)


def print_lookups(directory: Path, given: argparse.Namespace) -> None:
    """Medians and 99th percentiles of what is asked of a large registry."""
    start = time.perf_counter()
    registry, names = fill(directory / "home-of-many", given.versions)
    filled = time.perf_counter() - start
    size = registry.database.path.stat().st_size / 1e6
    print(f"{given.versions:,} versions of {len(names):,} adapters, warm, in process, ms")
    print(f"  {'':34}{'median':>9}{'p99':>9}{'asked':>9}")
    for label, found in lookups.measure(registry, names, LOOKUPS).items():
        asked = ASKED[label.partition(":")[0]]
        print(f"  {label:34}{median(found):9.3f}{p99(found):9.3f}{asked:9.1f}")
    print(f"  (the database has {size:.0f} MB and was filled in {filled:.0f} s)\n")


def print_commits(directory: Path, given: argparse.Namespace) -> None:
    """A commit of 65 MiB beside cp, fsync and sha256 of the same file."""
    found = commits.beside_copy(directory, given.rounds)
    parts = ", ".join(f"{name} {value:.0f}" for name, value in found["parts"].items())
    print(f"Commit of {found['mib']:.0f} MiB, median of {given.rounds}, in turns")
    print(f"  commit, every gate and fsync      {found['commit']:8.0f} ms")
    print(f"  copy, fsync, sha256 of the file   {found['copy']:8.0f} ms   ({parts})")
    print(f"  ratio                             {found['ratio']:8.2f}\n")


def print_writers(directory: Path, given: argparse.Namespace) -> None:
    """Commits a second by so many processes at once, all to one name."""
    print(f"{given.commits} commits of 1.2 MiB to one name, by processes at once")
    for writers in WRITERS:
        found = commits.by_writers(directory, writers, given.commits)
        numbers = sorted(found["numbers"])
        complete = numbers == list(range(1, len(numbers) + 1))
        state = "gapless, unique" if complete else "NOT gapless"
        print(f"  {writers:3} writers {found['per_second']:8.1f} commits a second   {state}")
    print()


def print_peers(directory: Path, given: argparse.Namespace) -> None:
    """Medians in milliseconds by side, and how many times ours each is."""
    mlflow = peers.make_environment(given.peer_venv or directory / "mlflow-venv")
    found = peers.compare(directory, mlflow, given.adapters, rounds=20)
    versions = {side: figures["version"] for side, figures in found.items()}
    print(f"{given.adapters} adapters of 1.2 to 9.3 MiB, medians in ms (times adapterhub's)")
    print("  " + " " * 42 + "".join(f"{side:>19}" for side in found))
    ratios = peers.ratios(found)
    for name, label in peers.OPERATIONS.items():
        cells = []
        for side, figures in found.items():
            if name not in figures:
                cells.append("-")
                continue
            times = f" ({ratios[side][name]:.1f}x)" if side in ratios else ""
            cells.append(f"{median(figures[name]):.3g}{times}")
        print(f"  {label:42}" + "".join(f"{cell:>19}" for cell in cells))
    print("  99th percentile of a commit: " + ", ".join(
        f"{side} {p99(figures['commit']):.0f}" for side, figures in found.items()
    ))  # fmt: skip
    print(f"  MLflow {versions['MLflow']}, huggingface_hub {versions['HF cache']}")
    print("  synced: with fsync of the files that it wrote, which it does not do by itself\n")


def print_exchange(directory: Path, given: argparse.Namespace) -> None:
    """Push and pull through a docker-registry on loopback, beside skopeo's copy."""
    if not exchange.available():
        print("Push and pull are not measured: docker-registry and skopeo are not installed\n")
        return
    found = exchange.measure(directory, EXCHANGES)
    print(f"65 MiB to and from docker-registry on loopback, MiB a second, median of {EXCHANGES}")
    print(f"  adz push {found['push']:6.0f}   skopeo copy, in  {found['skopeo in']:6.0f}")
    print(f"  adz pull {found['pull']:6.0f}   skopeo copy, out {found['skopeo out']:6.0f}\n")


def print_adopt(directory: Path, given: argparse.Namespace) -> None:
    """A folder of adapters taken over."""
    found = adopting.measure(directory, given.adopted)
    print(f"adz adopt of {given.adopted} adapters of 1.2 MiB, wall seconds, start included")
    print(f"  survey {found['survey']:.1f}   survey and import {found['import']:.1f}")
    print(f"  ({found['adopted']} imported)\n")


if __name__ == "__main__":
    main()
