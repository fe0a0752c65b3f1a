#!/usr/bin/env python3
"""Whether adapters of `adz train` are as good as TRL's, on held-out rows.

For each task TRL's SFTTrainer is tuned first: LoRA r=16, loss of the answers alone, and the
learning rate, its schedule and the layers that score best on rows that no adapter was trained on.
Then both train with these, on the same rows, for as many steps, with the same seeds, and answer
the same test rows.

    python benchmarks/train_quality.py                       # half a day on two cores
    python benchmarks/train_quality.py --jobs 12 --rows 300  # minutes on a GPU
    python benchmarks/train_quality.py --short               # one task and seed, four steps

What was done is kept in --home and never done again. The page is docs/train-quality.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import accelerator, machine  # noqa: E402
from quality import roman  # noqa: E402
from quality.adapters import BASE, BATCH, EXAMPLES, Adapters, Task  # noqa: E402
from quality.scores import Cells, Scorer  # noqa: E402
from quality.settings import LAYERS, SCHEDULES, Setting, Space, search  # noqa: E402

from adapterhub import Hub  # noqa: E402

TASKS = (
    Task("wordnet", "exact_match", steps=30, lr=1e-3),
    Task("american", "exact_match", steps=30, lr=1.5e-3),
    Task("spelling", "exact_match", steps=40, lr=1e-3),
    Task("spoken", "chrf", steps=30, lr=1e-3),
    Task("roman", "chrf", steps=40, lr=1e-3),
)
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
DRAWS = 10_000


@dataclass(frozen=True)
class Plan:
    """What is run, and where it is kept."""

    adapters: Adapters
    seeds: tuple[int, ...]
    space: Space
    rows: int
    page: Path
    jobs: int = 1

    @property
    def home(self) -> Path:
        """Where everything lies."""
        return self.adapters.hub.home


@dataclass(frozen=True)
class Result:
    """Points of a task's test rows, a list a seed, of TRL's adapters and of ours."""

    task: Task
    setting: Setting
    trl: list[list[float]]
    ours: list[list[float]]


def prepare(home: Path, examples: Path) -> None:
    """The rows of every task in one folder."""
    examples.mkdir(parents=True, exist_ok=True)
    for path in EXAMPLES.glob("*.jsonl"):
        shutil.copyfile(path, examples / path.name)
    roman.write(examples)
    home.mkdir(parents=True, exist_ok=True)


def train_trl(plan: Plan, task: Task, setting: Setting, seed: int) -> Path:
    """The folder of TRL's adapter, trained where it is not there."""
    name = f"{task.name}-{setting.label}-{seed}-{plan.adapters.steps_of(task)}"
    folder = plan.home / "trl" / name
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        (base,) = (record for record in plan.adapters.hub.bases() if record.name == BASE)
        rows = str(plan.adapters.rows(task, "train"))
        spec = {
            "kind": "trl", "tuned": True, "base": str(base.path), "train": rows,
            "holdout": str(plan.adapters.rows(task, "validation")), "epochs": 3,
            "steps": plan.adapters.steps_of(task), "warmup": 2, "seed": seed,
            "threads": max(1, len(os.sched_getaffinity(0)) // plan.jobs), "save": str(unfinished),
            **setting.for_trl(),
        }  # fmt: skip
        script = str(ROOT / "benchmarks" / "training" / "run.py")
        subprocess.run(
            [sys.executable, script, json.dumps(spec)], check=True, stdout=subprocess.DEVNULL
        )
        unfinished.rename(folder)
    return folder


class Scores:
    """Points of an adapter on its own task, kept for the next run in a file for each task."""

    def __init__(self, plan: Plan, task: Task) -> None:
        (plan.home / "cells").mkdir(exist_ok=True)
        self._cells = Cells(plan.home / "cells" / f"{task.name}.jsonl")
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


def measure(plan: Plan, task: Task) -> Result:
    """Tune TRL on the first seed, then train both with every seed."""
    scores = Scores(plan, task)

    def on_validation(settings: Sequence[Setting]) -> list[float]:
        seed = plan.seeds[0]
        folders = _at_once(plan, [partial(train_trl, plan, task, x, seed) for x in settings])
        found = []
        for setting, folder in zip(settings, folders, strict=True):
            points = scores.of(task, folder, "validation", plan.adapters.validation)
            found.append(float(np.mean(points)))
            print(f"{task.name}: TRL at {setting.label}: {found[-1]:.3f}", flush=True)
        return found

    setting = search(task.lr, plan.space, on_validation)
    tuned = replace(task, lr=setting.lr)
    trainings: list[Callable[[], Path]] = []
    for seed in plan.seeds:
        trainings.append(partial(train_trl, plan, task, setting, seed))
        trainings.append(partial(train_ours, plan, tuned, setting, seed))
    folders = list(_at_once(plan, trainings))
    points = [scores.of(task, folder, "test", plan.rows) for folder in folders]
    for seed, trl, ours in zip(plan.seeds, points[::2], points[1::2], strict=True):
        pair = (float(np.mean(trl)), float(np.mean(ours)))
        print(f"{task.name}, seed {seed}: TRL {pair[0]:.3f}, adz {pair[1]:.3f}", flush=True)
    return Result(tuned, setting, points[::2], points[1::2])


def train_ours(plan: Plan, tuned: Task, setting: Setting, seed: int) -> Path:
    """The folder of the adapter of `adz train`."""
    name = plan.adapters.train(tuned, seed, *setting.for_adz())
    return plan.adapters.hub.path(name)


def _at_once(plan: Plan, trainings: Sequence[Callable[[], Path]]) -> Iterator[Path]:
    """Their results in order. Each training is a process, so that threads may wait for it."""
    with ThreadPoolExecutor(max(1, plan.jobs // len(plan.adapters.tasks))) as pool:
        yield from pool.map(lambda train: train(), trainings)


def measure_all(given: argparse.Namespace) -> Iterator[Result]:
    """The result of each task in their order, of as many at once as `--jobs` says."""
    plan = make_plan(given)
    plan.adapters.prepare()
    if plan.jobs == 1:
        yield from (measure(plan, task) for task in plan.adapters.tasks)
        return
    count = len(plan.adapters.tasks)
    with ProcessPoolExecutor(min(plan.jobs, count), get_context("spawn")) as pool:
        yield from pool.map(_measure_one, [given] * count, range(count))


def _measure_one(given: argparse.Namespace, place: int) -> Result:
    plan = make_plan(given)
    return measure(plan, plan.adapters.tasks[place])


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
    gpu = accelerator()
    numbers = "weights in fp32, products in bf16" if gpu else "fp32"
    text = (
        "`benchmarks/train_quality.py` trains the same task with TRL's SFTTrainer and with "
        f"`adz train`: SmolLM2-135M, LoRA r=16, batch {BATCH}, {numbers}, the same rows, as many "
        f"steps, and the same settings. {plan.space.text(plan.adapters.validation)} "
        f"Seeds: {len(plan.seeds)}; test rows a task: {plan.rows}; greedy answers, exact match or "
        "chrF in percent. The difference is paired by seed and row, with a 95 % bootstrap interval "
        "over both. There are few steps: the table says whether both learn alike, not how far "
        "either can be driven."
    )
    lines = [
        "<!-- Generated by benchmarks/train_quality.py: run it again, do not edit. -->",
        "# Quality of trained adapters",
        "",
        *textwrap.wrap(text, 100),
        "",
        f"Machine: {machine()}{f'; {gpu}' if gpu else ''}.",
        "",
        "| task | metric | lr | steps | TRL | adz train | difference | schedule | layers |",
        "|---|---|---:|---:|---:|---:|---:|---|---|",
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
            f"| {100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] "
            f"| {result.setting.schedule} | {result.setting.layers} |"
        )
    mean, low, high = interval(differences)
    lines.append(f"| all | | | | | | {100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".quality" / "training")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "train-quality.md")
    parser.add_argument("--tasks", nargs="*", default=[task.name for task in TASKS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rates", nargs="*", type=float, default=RATES, help="x the first guess")
    parser.add_argument("--schedules", nargs="*", choices=SCHEDULES, default=SCHEDULES)
    parser.add_argument("--layers", nargs="*", choices=LAYERS, default=LAYERS)
    parser.add_argument("--rows", type=int, default=200, help="of a task's test")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, of all tasks")
    parser.add_argument("--short", action="store_true", help="a tiny form of everything")
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    given.home = given.home.resolve()
    prepare(given.home, given.home / "examples")
    plan = make_plan(given)
    results = []
    for result in measure_all(given):
        results.append(result)
        # A run that is broken off keeps its whole tasks.
        plan.page.write_text(page(plan, results), encoding="utf-8")
    print(plan.page.read_text(encoding="utf-8"))


def make_plan(given: argparse.Namespace) -> Plan:
    """What the command line asks for."""
    hub, examples = Hub(given.home), given.home / "examples"
    options = ("training.input_moments=0",)
    if given.short:
        adapters = Adapters(hub, [TASKS[3]], 4, 4, options, examples)
        return Plan(adapters, (0,), Space((1.0,)), 4, given.home / "train-quality.md")
    tasks = [task for name in given.tasks for task in TASKS if task.name == name]
    return Plan(
        Adapters(hub, tasks, None, 60, options, examples),
        tuple(given.seeds),
        Space(tuple(given.rates), tuple(given.schedules), tuple(given.layers)),
        given.rows,
        given.page,
        given.jobs,
    )


if __name__ == "__main__":
    main()
