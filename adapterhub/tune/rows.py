"""Which rows choose and which report: two parts without a common prompt, always the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from adapterhub.data import split_holdout
from adapterhub.data.split import prompt_key
from adapterhub.errors import AdzError
from adapterhub.evaluate.tasks import EvaluationTask, read_tasks
from adapterhub.tune.recipe import TuneRecipe


@dataclass(frozen=True, slots=True)
class Parts:
    """One task a file, in the order of the files: what is chosen on, and what is reported on."""

    choose: list[EvaluationTask]
    report: list[EvaluationTask]


def read_parts(recipe: TuneRecipe, seed: int) -> Parts:
    """Read the files and part them.

    Without `test` a file's prompts are halved by a hash; with it, rows of `data` whose prompt is
    in the test are left out. Raises AdzError where a part has no rows.
    """
    whole = read_tasks(recipe.data, (), limit=None, shots=0)
    tests = read_tasks(recipe.test, (), limit=None, shots=0) if recipe.test else []
    parts = Parts([], [])
    for number, (path, task) in enumerate(zip(recipe.data, whole, strict=True)):
        if tests:
            test = replace(tests[number], name=task.name)
            asked = {prompt_key(row) for row in test.rows}
            task = replace(task, rows=tuple(r for r in task.rows if prompt_key(r) not in asked))
        else:
            chosen, reported = split_holdout(task.rows, 0.5, seed)
            test, task = replace(task, rows=tuple(reported)), replace(task, rows=tuple(chosen))
        for part, rest in ((parts.choose, task), (parts.report, test)):
            part.append(_limited(path, rest, recipe.limit))
    return parts


def _limited(path: Path, task: EvaluationTask, limit: int | None) -> EvaluationTask:
    if not task.rows:
        raise AdzError(
            f"{path} has no rows left to choose or to report on", "add rows with other prompts"
        )
    return replace(task, rows=task.rows[:limit])
