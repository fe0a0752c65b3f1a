#!/usr/bin/env python3
"""What a merge keeps of its adapters: every rule, in each space, on adapters really trained.

For each of three seeds four adapters are trained on SmolLM2-135M, on four tasks, and merged. A
merge's score on a task is a share of the score of that task's own adapter on the same held-out
rows. Beside the merges stand the base, joint training on the rows of all tasks, and routing to
the right adapter, which is 1 by definition.

    python benchmarks/merge_quality.py                # all stages: hours on two cores
    python benchmarks/merge_quality.py --stage table  # docs/merge-quality.* from what is there
    python benchmarks/merge_quality.py --short        # two tasks, one seed, few steps: minutes

Weights and density are chosen on a part of the training rows that no adapter was trained on, with
the first seed's adapters; the table is about the test rows. What was done is kept in --home and
never done again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from quality.adapters import BASE, JOINT, TASKS, Adapters  # noqa: E402
from quality.merges import Bench, Merge, defaults  # noqa: E402
from quality.report import Entry, Page, mean_scores  # noqa: E402
from quality.scores import Cells, Scorer  # noqa: E402
from quality.search import Found, goodness, refine, search  # noqa: E402
from quality.shares import Kept, kept  # noqa: E402

from adapterhub import Hub  # noqa: E402


@dataclass(frozen=True)
class Plan:
    """What is run: seeds, rows a task to choose on and to report, and how much is refined."""

    adapters: Adapters
    seeds: tuple[int, ...]
    rows: int
    validation: int
    refined: int
    rounds: int
    rules: tuple[str, ...]
    spaces: tuple[str, ...]
    docs: Path

    @property
    def home(self) -> Path:
        """Where everything lies."""
        return self.adapters.hub.home

    def bench(self) -> Bench:
        """Loads the base."""
        hub = self.adapters.hub
        (base,) = (record for record in hub.bases() if record.name == BASE)
        scorer = Scorer(self.adapters, base)
        # A folder for each process: several may score at once.
        merged = self.home / f"merged-{os.getpid()}"
        return Bench(hub, Cells(self.home / "cells.jsonl"), scorer, merged)

    def merges(self, seed: int) -> Iterator[Merge]:
        """Every merge with its defaults."""
        names = [f"{task.name}-{seed}" for task in self.adapters.tasks]
        for merge in defaults(names):
            chosen = not self.rules or merge.rule in self.rules
            if chosen and (not self.spaces or merge.space in self.spaces):
                yield merge


def train(plan: Plan) -> None:
    """The base, the rows, one adapter a task and seed."""
    plan.adapters.prepare()
    for seed in plan.seeds:
        for task in plan.adapters.tasks:
            plan.adapters.train(task, seed)


def joint(plan: Plan) -> None:
    """One adapter on the rows of all tasks, for the first seed."""
    plan.adapters.train_joint(plan.seeds[0])


def beside(plan: Plan) -> None:
    """Test scores of the base, of each task's own adapter, and of joint training."""
    bench = plan.bench()
    for shots in (0, 4):
        report(f"base, {shots}-shot", bench.base("test", plan.rows, shots))
    for seed in plan.seeds:
        report(f"own adapters, seed {seed}", bench.single(seed, "test", plan.rows))
    together = bench.adapter(f"{JOINT}-{plan.seeds[0]}", "test", plan.rows)
    report(f"joint, seed {plan.seeds[0]}", together)


def tune(plan: Plan) -> None:
    """Scale and density of every merge, then each weight of the best."""
    bench, seed = plan.bench(), plan.seeds[0]
    single = bench.single(seed, "validation", plan.validation)

    def objective(merge: Merge) -> float | None:
        points = bench.points(merge, seed, "validation", plan.validation)
        if points is None:
            return None
        value = goodness(points, single)
        print(f"{value:.3f}  {merge.settings}", flush=True)
        return value

    found: dict[str, Found] = {}
    same: dict[str, Found] = {}
    for merge in plan.merges(seed):
        # Exact sums are the same in every space: what was found for one holds for the others.
        answers = json.dumps(bench.points(merge, seed, "validation", plan.validation))
        best = same.get(answers) or search(merge, objective)
        if best is not None:
            same[answers] = best
            value, chosen = best
            chosen = replace(merge, scale=chosen.scale, density=chosen.density)
            found[merge.label] = (value, chosen)
    order = sorted(found, key=lambda label: -found[label][0])
    for label in order[: plan.refined]:
        found[label] = refine(found[label][1], objective, plan.rounds) or found[label]
    path = plan.home / "tuned.json"
    kept_before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    new = {label: {"goodness": v, "merge": asdict(m)} for label, (v, m) in found.items()}
    path.write_text(json.dumps({**kept_before, **new}, indent=1), encoding="utf-8")


def tuned(plan: Plan) -> dict[str, Merge]:
    """What `tune` chose, by the merge's label, the best first."""
    chosen = json.loads((plan.home / "tuned.json").read_text(encoding="utf-8"))
    order = sorted(chosen, key=lambda label: -chosen[label]["goodness"])
    found = {}
    for label in order:
        found[label] = merge_from(chosen[label]["merge"])
    return found


def merge_from(values: dict[str, Any]) -> Merge:
    """A merge as it was written as JSON, which has lists only."""
    pairs = tuple((name, value) for name, value in values["own"])
    return Merge(**{**values, "weights": tuple(values["weights"]), "own": pairs})


def test(plan: Plan) -> None:
    """Test scores of every merge with its defaults, at 1/n and as tuned, for every seed."""
    bench = plan.bench()
    best = tuned(plan) if (plan.home / "tuned.json").exists() else {}
    for seed in plan.seeds:
        merges = list(plan.merges(seed))
        for merge in [*merges, *(best[m.label] for m in merges if m.label in best)]:
            points = bench.points(merge, seed, "test", plan.rows)
            if points is not None:
                report(f"{merge.settings}, seed {seed}", points)


def table(plan: Plan) -> None:
    """The page and the picture. What is not scored yet is left out, or scored where it is the
    base's, a single adapter's or joint training's."""
    bench, seeds, rows = plan.bench(), plan.seeds, plan.rows
    own = {seed: bench.single(seed, "test", rows) for seed in seeds}
    base = {shots: bench.base("test", rows, shots) for shots in (0, 4)}
    together = bench.adapter(f"{JOINT}-{seeds[0]}", "test", rows)

    def of(merge: Merge | None) -> Kept | None:
        found = {seed: bench.known(merge, seed, "test", rows) for seed in seeds} if merge else {}
        runs = [(points, own[seed]) for seed, points in found.items() if points is not None]
        return kept(runs) if runs else None

    best, entries = tuned(plan), []
    for merge in plan.merges(seeds[0]):
        chosen = best.get(merge.label)
        default = of(merge)
        if default is not None:
            entries.append(Entry(merge, default, chosen, of(chosen), usual=is_usual(merge)))
    page = Page(
        tasks=[task.name for task in plan.adapters.tasks],
        scores={
            **{f"base, {shots}-shot": mean_scores([points]) for shots, points in base.items()},
            "its own adapter": mean_scores(list(own.values())),
            f"joint training, seed {seeds[0]}": mean_scores([together]),
        },
        beside={
            **{f"base, {n}-shot": kept([(base[n], own[seed]) for seed in seeds]) for n in base},
            f"joint training, seed {seeds[0]}": kept([(together, own[seeds[0]])]),
        },
        entries=entries, rows=rows, validation=plan.validation, seeds=seeds,
    )  # fmt: skip
    (plan.docs / "merge-quality.md").write_text(page.text(), encoding="utf-8")
    page.draw(plan.docs / "merge-quality.svg")


def is_usual(merge: Merge) -> bool:
    """Whether the rule runs there when no space is given."""
    return merge.compat is None and merge.space == merge.described.spaces[0]


def report(label: str, points: dict[str, list[float]]) -> None:
    """A line on what was scored."""
    scores = "  ".join(f"{task} {sum(p) / len(p):.3f}" for task, p in points.items())
    print(f"{label}: {scores}", flush=True)


STAGES: dict[str, Callable[[Plan], None]] = {
    "train": train,
    "joint": joint,
    "beside": beside,
    "tune": tune,
    "test": test,
    "table": table,
}


def make_plan(options: argparse.Namespace) -> Plan:
    """The full form, or the short one."""
    hub = Hub(options.home)
    hub.home.mkdir(parents=True, exist_ok=True)
    if options.short:
        # Two steps teach no exact answer, so that all is scored by chrF.
        tasks = [replace(task, metric="chrf") for task in TASKS[1:3]]
        adapters = Adapters(hub, tasks, steps=2, validation=4)
        return Plan(adapters, (0,), 4, 2, 1, 1, ("linear", "ties"), ("core",), hub.home)
    rules = tuple(options.rules.split(",")) if options.rules else ()
    spaces = tuple(options.spaces.split(",")) if options.spaces else ()
    seeds = tuple(int(seed) for seed in options.seeds.split(","))
    adapters = Adapters(hub, TASKS)
    return Plan(
        adapters,
        seeds,
        options.rows,
        options.validation,
        options.refined,
        2,
        rules,
        spaces,
        ROOT / "docs",
    )


def main() -> int:
    """Run the stages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".quality", help="default: .quality")
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: all, in order")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=40, help="test rows a task (%(default)s)")
    parser.add_argument(
        "--validation", type=int, default=24, help="rows a task to choose on (%(default)s)"
    )
    parser.add_argument("--refined", type=int, default=4, help="merges refined (%(default)s)")
    parser.add_argument("--rules", help="only these, with commas between")
    parser.add_argument("--spaces", help="only these, with commas between")
    parser.add_argument("--short", action="store_true", help="a tiny form of everything")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    plan = make_plan(options)
    for stage in options.stage or STAGES:
        STAGES[stage](plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
