#!/usr/bin/env python3
"""What the registry survives: the fault tests with counts that can be set, as one table.

    .venv/bin/python benchmarks/registry_faults.py              # the counts of CI: minutes
    .venv/bin/python benchmarks/registry_faults.py --full       # the published counts: an hour
    .venv/bin/python benchmarks/registry_faults.py --full --only kill --kills 10000

Each row runs tests of this repository; what they counted themselves stands in the row. Ends with
1 when a row failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAULTS = "tests/registry/faults"


@dataclass(frozen=True)
class Row:
    """tests: arguments of pytest. full: environment variables of the published counts."""

    name: str
    what: str
    tests: tuple[str, ...]
    full: dict[str, str] = field(default_factory=dict)


ROWS = (
    Row(
        "kill",
        "kill -9 in commit, tag, rm, restore, gc, view, push, pull",
        (f"{FAULTS}/test_kills.py",),
        {"TEST_KILLS": "1000"},
    ),
    Row(
        "interrupt",
        "Ctrl-C in commit; forks; no right to write; kill -9 in a migration",
        (f"{FAULTS}/test_processes.py",),
        {"TEST_INTERRUPTS": "200"},
    ),
    Row(
        "power",
        "power loss: unsynced writes and renames dropped; each fsync left out",
        (f"{FAULTS}/test_power_loss.py",),
        {"TEST_POWER_SCRIPTS": "20", "TEST_POWER_STRIDE": "1"},
    ),
    Row(
        "disk",
        "ENOSPC, EIO, EINTR, short write at every call of the C library",
        (f"{FAULTS}/test_io_faults.py",),
        {"TEST_FAULT_STRIDE": "1"},
    ),
    Row(
        "writers",
        "16 writers: gapless and unique",
        (f"{FAULTS}/test_contention.py", "-k", "not gc"),
        {"TEST_COMMITS": "50"},
    ),
    Row(
        "gc",
        "gc against 8 committers and 4 readers",
        (f"{FAULTS}/test_contention.py", "-k", "gc"),
        {"TEST_GC_SECONDS": "60"},
    ),
    Row(
        "damage",
        "flipped bits, truncations, swaps: found by fsck",
        (f"{FAULTS}/test_corruption.py",),
        {"TEST_DAMAGES": "10000"},
    ),
    Row(
        "repair",
        "fsck --repair: from copies, a remote, the manifests",
        (f"{FAULTS}/test_repair.py",),
    ),
    Row(
        "model",
        "state machine against a dict, with faults and lost databases",
        (f"{FAULTS}/test_model.py",),
        {"TEST_MODEL_EXAMPLES": "500", "TEST_MODEL_STEPS": "50"},
    ),
    Row(
        "headers",
        "fuzzed safetensors headers: no crash, nothing that safetensors refuses",
        ("tests/bases/test_header_fuzz.py",),
        {"TEST_FUZZ": "1000000"},
    ),
    Row(
        "remote",
        "a remote that flips, cuts, stalls, fails, redirects",
        ("tests/exchange/test_lies.py", "tests/exchange/test_lying_manifests.py", "tests/remotes"),
    ),
)


def main() -> int:
    """Run the rows and print them one after the other."""
    options = parse()
    print(f"{'what':72} {'seconds':>8}  result")
    failed = 0
    for row in ROWS:
        if options.only and row.name not in options.only:
            continue
        counts = row.full if options.full else {}
        if row.name == "kill" and options.kills:
            counts = {"TEST_KILLS": str(options.kills)}
        failed += not run(row, counts)
    return int(failed > 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The registry under faults, as a table.")
    names = [row.name for row in ROWS]
    parser.add_argument("--full", action="store_true", help="the published counts, not CI's")
    parser.add_argument("--only", nargs="+", choices=names, help="only these rows")
    parser.add_argument("--kills", type=int, help="how many processes are killed")
    return parser.parse_args()


def run(row: Row, counts: dict[str, str]) -> bool:
    """Run one row's tests, and print what they counted."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *row.tests]
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, "--timeout", "0"],
        cwd=ROOT, env={"OMP_NUM_THREADS": "1", **os.environ, **counts}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    summary = re.findall(r"^\d+ (?:passed|failed).*?(?= in )", done.stdout, re.MULTILINE)
    result = summary[-1] if summary else "it did not run"
    print(f"{row.what:72} {seconds:8.0f}  {result}", flush=True)
    for text in re.findall(r"figure: (.*)", done.stdout):
        print(f"    {text}")
    if done.returncode:
        print(done.stdout[-3000:] + done.stderr[-1000:], file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
