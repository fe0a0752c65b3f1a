"""An evaluation: every subject on every task, scored, with its interval, and attested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub import protocols, specs
from adapterhub.bases.identity import template_warning
from adapterhub.bases.together import resolve_together
from adapterhub.bases.verify import verify_base
from adapterhub.data import choose_format
from adapterhub.data.prompt import PromptFormat
from adapterhub.evaluate.interval import wilson_interval
from adapterhub.evaluate.questions import (
    Answerer,
    Question,
    Subject,
    make_questions,
    reference_of,
)
from adapterhub.evaluate.tasks import EvaluationTask, read_tasks
from adapterhub.manifest import BaseRecord
from adapterhub.models import load_tokenizer
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Progress, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What `adz eval` was asked for.

    references: versions, or a base's name; the base is always evaluated too. shots_from:
    nothing, or a file for each of `data`. limit: rows a task, None for all. url: a server
    (ending in /v1); None loads the model here. max_tokens: None for a little more than the
    longest reference has.
    """

    references: tuple[str, ...]
    data: tuple[Path, ...]
    base: str | None = None
    metric: str = "exact_match"
    shots: int = 0
    shots_from: tuple[Path, ...] = ()
    limit: int | None = None
    url: str | None = None
    api_key: str | None = None
    max_tokens: int | None = None
    batch_size: int = 16
    attest: bool = True


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the table. `low` and `high` bound the 95 % interval; all three in [0, 1]."""

    subject: str
    reference: str
    digest: str | None
    task: str
    data: dict[str, Any]
    metric: str
    n: int
    score: float
    low: float
    high: float
    shots: int
    prompt_format: str
    max_tokens: int
    engine: str


def evaluate(registry: Registry, settings: EvaluationSettings, progress: Progress) -> list[Score]:
    """Scores by subject, the base first, and within one by task, in the order given.

    Raises AdzError for whatever is wrong with names, files or the server, before a model is
    loaded where that can be known.
    """
    component = load_plugins().get(specs.Metric, settings.metric)
    metric: protocols.Metric = load_plugins().load_implementation(component)
    base, versions = resolve_together(registry, settings.references, settings.base)
    subjects = [
        Subject(base.name, base.name, None),
        *(Subject(name, version.reference, version) for name, version in versions.items()),
    ]
    tasks = read_tasks(
        settings.data, settings.shots_from, limit=settings.limit, shots=settings.shots
    )
    verify_base(base)
    for name, version in versions.items():
        warning = template_warning(version, base)
        if warning:
            progress.warn(warning)
        if version.manifest.quantizer:
            progress.note(
                f"{name} was trained over {version.manifest.quantizer}; "
                f"it is scored on {base.name} as it is stored, which also serves it"
            )
    cells = _cells(subjects, tasks, base, settings)
    answerer = _answerer(registry, base, settings)
    scores = []
    for cell, answers in zip(cells, _ask(cells, answerer, progress), strict=True):
        pairs = zip(answers, cell.task.rows, strict=True)
        points = [metric(answer, reference_of(row)) for answer, row in pairs]
        scores.append(_score(cell, points, settings.metric, answerer.engine))
    if settings.attest:
        _attest(registry, subjects, scores)
    return scores


@dataclass(frozen=True, slots=True)
class _Cell:
    subject: Subject
    task: EvaluationTask
    questions: list[Question]


def _cells(
    subjects: Sequence[Subject],
    tasks: Sequence[EvaluationTask],
    base: BaseRecord,
    settings: EvaluationSettings,
) -> list[_Cell]:
    tokenizer = load_tokenizer(base)
    cells = []
    for subject in subjects:
        for task in tasks:
            prompt_format = _prompt_format(subject, subjects, task, tokenizer)
            questions = make_questions(
                subject,
                task.rows,
                prompt_format,
                tokenizer,
                shots=() if subject.version else task.shots,
                max_tokens=settings.max_tokens,
            )
            cells.append(_Cell(subject, task, questions))
    return cells


def _prompt_format(
    subject: Subject, subjects: Sequence[Subject], task: EvaluationTask, tokenizer: Any
) -> PromptFormat:
    """What the version was trained with; for the base what all versions here were."""
    asked = [subject] if subject.version else subjects
    formats = {s.version.manifest.prompt_format for s in asked if s.version}
    known = next(iter(formats)) if len(formats) == 1 else None
    return known or choose_format(task.rows, tokenizer)


def _answerer(registry: Registry, base: BaseRecord, settings: EvaluationSettings) -> Answerer:
    if settings.url is not None:
        from adapterhub.evaluate.remote import RemoteAnswerer

        return RemoteAnswerer(settings.url, settings.api_key)
    from adapterhub.evaluate.local import LocalAnswerer

    return LocalAnswerer(registry, base, settings.batch_size)


def _ask(cells: Sequence[_Cell], answerer: Answerer, progress: Progress) -> list[list[str]]:
    """The answers of each cell, asked in turn: the first row of every cell, then the second,
    and so on, so that a server's batches hold all models."""
    order = sorted(
        (row, place) for place, cell in enumerate(cells) for row in range(len(cell.questions))
    )
    with progress.task(f"asking {len(order)} questions", len(order)) as bar:
        texts = answerer.answer([cells[place].questions[row] for row, place in order], bar)
    answers: list[list[str]] = [[] for _ in cells]
    for (_, place), text in zip(order, texts, strict=True):
        answers[place].append(text)
    return answers


def _score(cell: _Cell, points: Sequence[float], metric: str, engine: str) -> Score:
    share = sum(points) / len(points)
    low, high = wilson_interval(share, len(points))
    version, first = cell.subject.version, cell.questions[0]
    return Score(
        subject=cell.subject.name,
        reference=cell.subject.model,
        digest=version.digest if version else None,
        task=cell.task.name,
        data=cell.task.record,
        metric=metric,
        n=len(points),
        score=share,
        low=low,
        high=high,
        shots=len(first.shots),
        prompt_format=first.prompt_format,
        max_tokens=first.max_tokens,
        engine=engine,
    )


def _attest(registry: Registry, subjects: Sequence[Subject], scores: Sequence[Score]) -> None:
    beside = {score.task: score for score in scores if score.digest is None}
    versions = {subject.model: subject.version for subject in subjects}
    plugins = load_plugins()
    made_by = {
        metric: plugins.versions_of(plugins.get(specs.Metric, metric))
        for metric in {score.metric for score in scores}
    }
    for (reference, task), score in {(s.reference, s.task): s for s in scores}.items():
        version, base = versions[reference], beside[task]
        if version is None:
            continue
        body = {
            "task": score.task,
            "data": score.data,
            "metric": score.metric,
            "n": score.n,
            "score": score.score,
            "interval": [score.low, score.high],
            "shots": score.shots,
            "prompt_format": score.prompt_format,
            "max_tokens": score.max_tokens,
            "engine": score.engine,
            "plugins": made_by[score.metric],
            "base": {"score": base.score, "shots": base.shots},
        }
        registry.attest(version, "evaluation", body)
