"""Scores of adapters on tasks: the base is loaded once, the adapters come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adapterhub import protocols, specs
from adapterhub.data import choose_format
from adapterhub.errors import usage_error
from adapterhub.evaluate.interval import wilson_interval
from adapterhub.evaluate.local import LocalAnswerer
from adapterhub.evaluate.questions import Subject, make_questions, reference_of
from adapterhub.evaluate.tasks import EvaluationTask
from adapterhub.manifest import BaseRecord
from adapterhub.merge.record import shared
from adapterhub.merge.silent import Silent
from adapterhub.models import load_tokenizer
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Registry
from adapterhub.tune.recipe import TuneRecipe


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A mean over `n` rows, in [0, 1], with its 95 % interval."""

    task: str
    n: int
    score: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Scorer:
    """Greedy answers of adapters over one base, scored by one metric."""

    def __init__(self, registry: Registry, base: BaseRecord, recipe: TuneRecipe) -> None:
        self._metric = load_metric(recipe.metric)
        self._max_tokens = recipe.max_tokens
        self._tokenizer = load_tokenizer(base)
        self._answerer = LocalAnswerer(registry, base, recipe.batch_size)

    def score(
        self, subject: Subject, trained_with: Sequence[Any], tasks: Sequence[EvaluationTask]
    ) -> list[TaskScore]:
        """The subject's scores in the order of the tasks.

        trained_with: the prompt formats of the adapters that are in it; where they differ, or
        one is not known, each task's rows decide.
        """
        questions = []
        for task in tasks:
            prompt_format = shared(trained_with) or choose_format(task.rows, self._tokenizer)
            questions += make_questions(
                subject, task.rows, prompt_format, self._tokenizer, max_tokens=self._max_tokens
            )
        texts = iter(self._answerer.answer(questions, Silent()))
        return [self._task_score(task, texts) for task in tasks]

    def _task_score(self, task: EvaluationTask, texts: Any) -> TaskScore:
        points = [self._metric(next(texts), reference_of(row)) for row in task.rows]
        mean = sum(points) / len(points)
        low, high = wilson_interval(mean, len(points))
        return TaskScore(task.name, len(points), mean, low, high)


def load_metric(name: str) -> protocols.Metric:
    """The metric; a usage error for an unknown one, or one whose least value is the best."""
    component = load_plugins().get(specs.Metric, name)
    if not component.higher_is_better:
        raise usage_error(
            f"the metric {name!r} is better when lower, a search needs a share of the best",
            "choose another --metric",
        )
    metric: protocols.Metric = load_plugins().load_implementation(component)
    return metric
