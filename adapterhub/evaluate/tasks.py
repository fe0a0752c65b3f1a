"""Which rows of a file are evaluated, and which are shown as examples: always the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.data import DataSet, read_examples
from adapterhub.data.split import prompt_key
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import canonical_json
from adapterhub.protocols import Example


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """A column of the table: the rows to answer and the shots for a base."""

    name: str
    record: dict[str, Any]
    """The data set's file, sha256, rows and format."""
    rows: tuple[Example, ...]
    shots: tuple[Example, ...]


def read_tasks(
    data: Sequence[Path], shots_from: Sequence[Path], *, limit: int | None, shots: int
) -> list[EvaluationTask]:
    """One task for each file of `data`; `shots_from` is empty or has a file for each.

    Rows are taken in the order of a hash of their content, so that `limit` chooses the same
    ones everywhere; shots come from `shots_from`, or from rows that are not evaluated, and
    never ask what an evaluated row asks.
    """
    if shots_from and len(shots_from) != len(data):
        raise usage_error(
            f"{len(shots_from)} --shots-from for {len(data)} --data", "give one for each, in order"
        )
    sources: list[Path | None] = list(shots_from) or [None] * len(data)
    return [
        _task(name, path, source, limit, shots)
        for name, path, source in zip(_names(data), data, sources, strict=True)
    ]


def _task(
    name: str, path: Path, source: Path | None, limit: int | None, shots: int
) -> EvaluationTask:
    data_set = read_examples(path)
    ordered = _shuffled(path, data_set)
    rows = ordered[:limit]
    others = _shuffled(source, read_examples(source)) if source else ordered[len(rows) :]
    asked = {prompt_key(row) for row in rows}
    candidates = [example for example in others if prompt_key(example) not in asked]
    if shots > len(candidates):
        raise usage_error(
            f"{source or path} has {len(candidates)} rows that are not evaluated, "
            f"not the {shots} that --shots asks for",
            "lower --limit or --shots, or name another file with --shots-from",
        )
    return EvaluationTask(name, data_set.record(), tuple(rows), tuple(candidates[:shots]))


def _shuffled(path: Path, data_set: DataSet) -> list[Example]:
    if data_set.kind != "supervised":
        raise usage_error(
            f"{path} has {data_set.format} rows, which have no answer to compare with",
            "use prompts with completions, or chats",
        )
    if not all(example.prompt or example.messages for example in data_set.examples):
        raise AdzError(
            f"{path} has rows without a prompt, which cannot be asked", "use prompts or chats"
        )
    return sorted(data_set.examples, key=lambda example: hashlib.sha256(_content(example)).digest())


def _content(example: Example) -> bytes:
    messages = [dict(message) for message in example.messages]
    return canonical_json([example.prompt, example.completion, messages])


def _names(data: Sequence[Path]) -> list[str]:
    """The files' names up to the first dot, or their paths where two are called the same."""
    short = [path.name.partition(".")[0] for path in data]
    return short if len(set(short)) == len(short) else [str(path) for path in data]
