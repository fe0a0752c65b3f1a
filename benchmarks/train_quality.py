#!/usr/bin/env python3
"""Whether adapters of `adz train` are as good as TRL's, on held-out rows.

For each task TRL's SFTTrainer is tuned first: LoRA r=16 on all linear layers, fp32, loss of the
answers alone, and the learning rate that scores best on rows that no adapter was trained on. Then
both train with that rate, on the same rows, for as many steps, three seeds each, and answer the
same test rows.

    python benchmarks/train_quality.py           # an hour or two on two cores
    python benchmarks/train_quality.py --short   # one task, one seed, four steps: minutes

What was done is kept in --home and never done again. The page is docs/train-quality.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import machine  # noqa: E402
from quality import roman  # noqa: E402
from quality.adapters import BASE, BATCH, EXAMPLES, Adapters, Task  # noqa: E402
from quality.scores import Cells, Scorer  # noqa: E402

from adapterhub import Hub  # noqa: E402

TASKS = (
    Task("wordnet", "exact_match", steps=30, lr=1e-3),
    Task("american", "exact_match", steps=30, lr=1.5e-3),
    Task("spelling", "exact_match", steps=40, lr=1e-3),
    Task("spoken", "chrf", steps=30, lr=1e-3),
    Task("roman", "chrf", steps=40, lr=1e-3),
)
RATES = (0.5, 1.0, 2.0)
DRAWS = 10_000


@dataclass(frozen=True)
class Plan:
    """What is run, and where it is kept."""

    adapters: Adapters
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    rows: int
    page: Path

    @property
    def home(self) -> Path:
        """Where everything lies."""
        return self.adapters.hub.home


@dataclass(frozen=True)
class Result:
    """Points of a task's test rows, a list a seed, of TRL's adapters and of ours."""

    task: Task
    trl: list[list[float]]
    ours: list[list[float]]


def prepare(home: Path, examples: Path) -> None:
    """The rows of every task in one folder."""
    examples.mkdir(parents=True, exist_ok=True)
    for path in EXAMPLES.glob("*.jsonl"):
        shutil.copyfile(path, examples / path.name)
    roman.write(examples)
    home.mkdir(parents=True, exist_ok=True)


def train_trl(plan: Plan, task: Task, rate: float, seed: int) -> Path:
    """The folder of TRL's adapter, trained where it is not there."""
    folder = plan.home / "trl" / f"{task.name}-{rate:g}-{seed}-{plan.adapters.steps_of(task)}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (base,) = (record for record in plan.adapters.hub.bases() if record.name == BASE)
        rows = str(plan.adapters.rows(task, "train"))
        spec = {
            "kind": "trl", "tuned": True, "base": str(base.path), "train": rows,
            "holdout": str(plan.adapters.rows(task, "validation")), "epochs": 3,
            "steps": plan.adapters.steps_of(task), "warmup": 2, "lr": rate, "seed": seed,
            "threads": len(os.sched_getaffinity(0)), "save": str(partial),
        }  # fmt: skip
        script = str(ROOT / "benchmarks" / "training" / "run.py")
        subprocess.run(
            [sys.executable, script, json.dumps(spec)], check=True, stdout=subprocess.DEVNULL
        )
        partial.rename(folder)
    return folder


class Scores:
    """Points of an adapter on its own task, kept for the next run."""

    def __init__(self, plan: Plan) -> None:
        self._cells = Cells(plan.home / "cells.jsonl")
        (base,) = (record for record in plan.adapters.hub.bases() if record.name == BASE)
        self._scorer = Scorer(plan.adapters, base)

    def of(self, task: Task, directory: Path, part: str, rows: int) -> list[float]:
        """One number for each of `rows` rows, 0 to 1."""
        key = {"adapter": directory.name, "task": task.name, "part": part, "rows": rows}
        points = self._cells.get(key)
        if points is None:
            points = self._scorer.points(directory, part, rows, only=[task.name])
            self._cells.put(key, points)
        return points[task.name]


def measure(plan: Plan, task: Task, scores: Scores) -> Result:
    """Tune TRL on the first seed, then train both with every seed."""

    def on_validation(rate: float) -> float:
        folder = train_trl(plan, task, rate, plan.seeds[0])
        found = scores.of(task, folder, "validation", plan.adapters.validation)
        print(f"{task.name}: TRL at lr {rate:g}: {np.mean(found):.3f} on validation", flush=True)
        return float(np.mean(found))

    rates = [task.lr * factor for factor in plan.rates]
    rate = max(rates, key=on_validation) if len(rates) > 1 else rates[0]
    tuned = replace(task, lr=rate)
    result = Result(tuned, [], [])
    for seed in plan.seeds:
        folder = train_trl(plan, task, rate, seed)
        result.trl.append(scores.of(task, folder, "test", plan.rows))
        ours = plan.adapters.hub.path(plan.adapters.train(tuned, seed))
        result.ours.append(scores.of(task, ours, "test", plan.rows))
        pair = (float(np.mean(result.trl[-1])), float(np.mean(result.ours[-1])))
        print(f"{task.name}, seed {seed}: TRL {pair[0]:.3f}, adz {pair[1]:.3f}", flush=True)
    return result


def interval(differences: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Mean of `(seeds, rows)` differences over all tasks, and its 95 % interval: a paired
    percentile bootstrap (Efron 1979) that draws seeds and rows again."""
    random = np.random.default_rng(0)
    drawn = np.zeros(DRAWS)
    for values in differences:
        seeds, rows = values.shape
        for place in range(DRAWS):
            some = values[random.integers(seeds, size=seeds)]
            drawn[place] += some[:, random.integers(rows, size=rows)].mean() / len(differences)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.mean([values.mean() for values in differences])), float(low), float(high)


def page(plan: Plan, results: Sequence[Result]) -> str:
    """The table, as Markdown."""
    chosen = (
        f"which is the one of {', '.join(f'{f:g}' for f in plan.rates)} times a first guess that "
        f"serves TRL best on {plan.adapters.validation} other rows"
        if len(plan.rates) > 1
        else "which was not searched"
    )
    lines = [
        "<!-- Generated by benchmarks/train_quality.py: run it again, do not edit. -->",
        "# Quality of trained adapters",
        "",
        "`benchmarks/train_quality.py` trains the same task with TRL's SFTTrainer and with",
        f"`adz train`: SmolLM2-135M, LoRA r=16 on all linear layers, batch {BATCH}, the same rows,",
        f"as many steps, the same learning rate, {chosen}. Seeds: {len(plan.seeds)}; test rows a",
        f"task: {plan.rows}; greedy answers, exact match or chrF in percent. The difference is",
        "paired by seed and row, with a 95 % bootstrap interval over both. The schedule is linear",
        "for both and was not searched, nor were the targets: few steps, so that the table says",
        "whether both learn alike, not how far either can be driven.",
        "",
        f"Machine: {machine()}.",
        "",
        "| task | metric | lr | steps | TRL | adz train | difference |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    differences = []
    for result in results:
        trl, ours = np.array(result.trl), np.array(result.ours)
        differences.append(ours - trl)
        mean, low, high = interval([ours - trl])
        task = result.task
        lines.append(
            f"| {task.name} | {task.metric} | {task.lr:g} | {plan.adapters.steps_of(task)} "
            f"| {100 * trl.mean():.1f} | {100 * ours.mean():.1f} "
            f"| {100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] |"
        )
    mean, low, high = interval(differences)
    lines.append(f"| all | | | | | | {100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".quality" / "training")
    parser.add_argument("--tasks", nargs="*", default=[task.name for task in TASKS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--rates", nargs="*", type=float, default=RATES, help="x the first guess")
    parser.add_argument("--short", action="store_true", help="a tiny form of everything")
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    home = given.home.resolve()
    prepare(home, home / "examples")
    tasks = sorted(
        (task for task in TASKS if task.name in given.tasks),
        key=lambda task: given.tasks.index(task.name),
    )
    options = ("training.input_moments=0",)
    hub, examples = Hub(home), home / "examples"
    if given.short:
        adapters = Adapters(hub, [TASKS[3]], 4, 4, options, examples)
        plan = Plan(adapters, (0,), (1.0,), 4, home / "train-quality.md")
    else:
        adapters = Adapters(hub, tasks, None, 60, options, examples)
        plan = Plan(
            adapters,
            tuple(given.seeds),
            tuple(given.rates),
            60,
            ROOT / "docs" / "train-quality.md",
        )
    adapters.prepare()
    scores = Scores(plan)
    results = []
    for task in adapters.tasks:
        results.append(measure(plan, task, scores))
        # A run that is broken off keeps its whole tasks.
        plan.page.write_text(page(plan, results), encoding="utf-8")
    print(plan.page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
