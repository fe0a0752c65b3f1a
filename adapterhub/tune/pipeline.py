"""A tuned merge as a whole: score the singles, search, report once, and keep the winner."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from adapterhub.bases.together import resolve_together
from adapterhub.bases.verify import verify_base
from adapterhub.errors import AdzError
from adapterhub.evaluate.questions import Subject
from adapterhub.evaluate.tasks import EvaluationTask
from adapterhub.manifest import BaseRecord
from adapterhub.merge.operands import Operand
from adapterhub.merge.pipeline import run, store
from adapterhub.merge.prepare import PreparedMerge, default_name, prepare
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Progress, Registry
from adapterhub.staging import home_staging, staging_folder
from adapterhub.tune.recipe import TuneRecipe
from adapterhub.tune.result import (
    REPORT,
    TRIALS,
    ReportRow,
    TuneResult,
    report_row,
    report_text,
    trials_table,
)
from adapterhub.tune.rows import Parts, read_parts
from adapterhub.tune.scorer import Scorer, TaskScore, load_metric
from adapterhub.tune.search import best_of, search
from adapterhub.tune.space import search_space


def tune(
    recipe: MergeRecipe, tuning: TuneRecipe, registry: Registry, progress: Progress
) -> TuneResult:
    """Search for the merge with the highest mean share of the best singles' scores; keep it.

    What `recipe` gives is held fixed. The winner is chosen on one part of the rows and reported
    on the other, beside the recipe as it was given and the singles. Ctrl-C ends the search and
    keeps the best so far; a second one, or one before the first candidate, leaves nothing.
    """
    load_metric(tuning.metric)
    parts = read_parts(tuning, recipe.seed)
    space = search_space(recipe, registry)
    prepared = prepare(recipe, registry)
    base = _base(prepared, registry)
    with staging_folder(home_staging()) as folder:
        scorer = Scorer(registry, base, tuning)
        bench = _Bench(prepared, registry, scorer, parts, folder)
        with progress.task("scoring the single adapters", len(prepared.operands)) as bar:
            for operand in prepared.operands:
                bench.single(operand)
                bar.advance(1, operand.label)
        owners = bench.owners
        trials = search(
            space,
            bench.measure,
            progress,
            seed=recipe.seed,
            budget=tuning.budget,
            minutes=tuning.minutes,
        )
        best = best_of(trials)
        winner = _named(space.with_values(best.recipe))
        with progress.task("scoring the other rows", len(prepared.operands) + 2) as bar:
            report = bench.report(winner, bar)
    found = TuneResult(prepared.result, tuning.metric, best, tuple(trials), owners, report)
    merged = store(
        prepare(winner, registry),
        registry,
        progress,
        metrics={"tuning": _record(found, parts)},
        artifacts={TRIALS: trials_table(trials), REPORT: report_text(report)},
    )
    return replace(found, merged=merged)


def _named(winner: MergeRecipe) -> MergeRecipe:
    if winner.name is not None or winner.out is not None:
        return winner
    return winner.model_copy(update={"name": default_name(winner.adapters, "tuned")})


@dataclass
class _Bench:
    """The singles and the candidates of one search, on both parts of the rows."""

    prepared: PreparedMerge
    registry: Registry
    scorer: Scorer
    parts: Parts
    folder: Path

    def __post_init__(self) -> None:
        self._singles: dict[str, list[TaskScore]] = {}

    def single(self, operand: Operand) -> None:
        """Score an operand on the rows to choose on."""
        self._singles[operand.label] = self._score_single(operand, self.parts.choose)

    @cached_property
    def owners(self) -> dict[str, str]:
        """The adapter that scores best, by task; an AdzError where none scores above 0."""
        owners = {}
        for place, task in enumerate(self.parts.choose):
            label = max(self._singles, key=lambda name: self._singles[name][place].score)
            if self._singles[label][place].score <= 0:
                raise AdzError(
                    f"no adapter scores above 0 on {task.name}: there is nothing to keep",
                    "is it the right --metric, and are the rows of one of the adapters' tasks?",
                )
            owners[task.name] = label
        return owners

    def measure(self, recipe: MergeRecipe, number: int) -> tuple[list[TaskScore], list[float]]:
        """A `search.Measure`."""
        scores = self._score_merge(recipe, f"trial-{number}", self.parts.choose)
        bests = [self._singles[self.owners[score.task]] for score in scores]
        shares = [s.score / b[i].score for i, (s, b) in enumerate(zip(scores, bests, strict=True))]
        return scores, shares

    def report(self, winner: MergeRecipe, bar: Any) -> tuple[ReportRow, ...]:
        """The singles, the recipe as it was given and the winner, once, on the other rows."""
        tasks = self.parts.report
        rows = []
        for operand in self.prepared.operands:
            rows.append((operand.label, self._score_single(operand, tasks)))
            bar.advance()
        for name, recipe in (("not tuned", self.prepared.recipe), ("tuned", winner)):
            rows.append((name, self._score_merge(recipe, name.replace(" ", "-"), tasks)))
            bar.advance()
        singles = dict(rows)
        bests = [singles[self.owners[t.name]][i].score for i, t in enumerate(tasks)]
        return tuple(report_row(name, scores, bests) for name, scores in rows)

    def _score_single(self, operand: Operand, tasks: Sequence[EvaluationTask]) -> list[TaskScore]:
        subject = Subject(operand.label, operand.label, operand.version, operand.directory)
        return self.scorer.score(subject, [_prompt_format(operand)], tasks)

    def _score_merge(
        self, recipe: MergeRecipe, name: str, tasks: Sequence[EvaluationTask]
    ) -> list[TaskScore]:
        prepared = prepare(recipe, self.registry)
        directory = self.folder / name
        directory.mkdir()
        try:
            run(prepared, directory, Silent())
            formats = [_prompt_format(operand) for operand in prepared.operands]
            return self.scorer.score(Subject(name, name, None, directory), formats, tasks)
        finally:
            shutil.rmtree(directory)


def _prompt_format(operand: Operand) -> str | None:
    return operand.version.manifest.prompt_format if operand.version else None


def _base(prepared: PreparedMerge, registry: Registry) -> BaseRecord:
    references = [o.version.reference for o in prepared.operands if o.version]
    base, _ = resolve_together(registry, references, prepared.recipe.base)
    verify_base(base)
    return base


def _record(result: TuneResult, parts: Parts) -> dict[str, Any]:
    """For the manifest: what was searched and found; every trial is in the artifact."""
    return {
        "metric": result.metric,
        "trials": len(result.trials),
        "best_trial": result.best.number,
        "mean_share": result.best.value,
        "worst_share": result.best.worst,
        "best_singles": result.best_singles,
        "data": [{**task.record, "chosen_on": len(task.rows)} for task in parts.choose],
        "test": [{**task.record, "reported_on": len(task.rows)} for task in parts.report],
        "report": {
            row.subject: {
                **{score.task: score.score for score in row.scores},
                "mean_share": row.mean_share,
                "worst_share": row.worst_share,
            }
            for row in result.report
        },
    }
