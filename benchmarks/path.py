#!/usr/bin/env python3
"""What the whole path costs: the demo's steps, a merge beside PEFT, `--help`, a fresh adapter.

    make demo && .venv/bin/python benchmarks/path.py

Reads the demo's record under ADZ_HOME (default: .demo) and serves its adapters; what it
commits there it removes again. Times are wall seconds unless it says otherwise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benchmarks")]

import demo  # noqa: E402
import merge  # noqa: E402
from machine import machine  # noqa: E402
from openai import OpenAI  # noqa: E402

STARTS = 20
FRESH = 5
PARENTS = ("american", "spelling")
PROMPT = "British: colour\nAmerican:"


def main() -> int:
    """Print the four parts."""
    home = Path(os.environ.setdefault("ADZ_HOME", str(ROOT / ".demo")))
    print(f"machine: {machine()}")
    demo_steps(home)
    merge.main()
    help_time()
    run = demo.Demo(home)
    run.read_record()
    fresh_adapter(run)
    return 0


def demo_steps(home: Path) -> None:
    """The time of each step of the demo, from its record."""
    path = home / "demo.json"
    if not path.exists():
        sys.exit(f"there is no {path}: run make demo first")
    record = json.loads(path.read_text(encoding="utf-8"))
    print("\ndemo, seconds a step")
    for step, facts in record.items():
        print(f"  {step:<20}{facts['seconds']:8.1f}")
    print(f"  {'all':<20}{sum(facts['seconds'] for facts in record.values()):8.1f}")


def help_time() -> None:
    """`adz --help` beside an empty Python, in turns, so that both see the same load."""
    empty, shown = [], []
    for _ in range(STARTS):
        empty.append(seconds([sys.executable, "-c", "pass"]))
        shown.append(seconds([*demo.ADZ, "--help"]))
    bare, full = statistics.median(empty), statistics.median(shown)
    print(f"\nadz --help, median of {STARTS}")
    print(f"  python -c pass      {bare * 1000:8.0f} ms")
    print(f"  adz --help          {full * 1000:8.0f} ms")
    print(f"  difference          {(full - bare) * 1000:8.0f} ms ({full / bare:.1f} times)")


def seconds(command: Sequence[str]) -> float:
    """Wall seconds of one process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def fresh_adapter(run: demo.Demo) -> None:
    """The first answer of adapters that were committed after the server had started."""
    first, second, known = [], [], []
    with demo.server(run) as url:
        client = OpenAI(base_url=url, api_key="none", max_retries=0)
        answer_seconds(client, demo.BASE)
        answer_seconds(client, "american")
        for i in range(FRESH):
            name = f"path-benchmark-{i}"
            adz("merge", "--weights", f"1,0.{i + 1}", "--rank", "max", *PARENTS, "--name", name)
            first.append(answer_seconds(client, name))
            second.append(answer_seconds(client, name))
            known.append(answer_seconds(client, "american"))
            adz("rm", name, "--yes")
    middle = [statistics.median(times) * 1000 for times in (first, second, known)]
    print(f"\nan adapter committed while the server runs, median of {FRESH}")
    print(f"  its first answer    {middle[0]:8.0f} ms")
    print(f"  its second answer   {middle[1]:8.0f} ms")
    print(f"  an older adapter's  {middle[2]:8.0f} ms")
    print(f"  first to second     {middle[0] / middle[1]:8.1f} times")


def adz(*arguments: str) -> None:
    """Run a command whose output nobody needs."""
    subprocess.run([*demo.ADZ, *arguments], check=True, capture_output=True)


def answer_seconds(client: OpenAI, model: str) -> float:
    """Wall seconds of one short greedy answer."""
    begun = time.perf_counter()
    client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0)
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
