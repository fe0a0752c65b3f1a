"""Rows of a data set, how they are read and how answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Example:
    """One row, as every format yields it.

    Either `messages` (a chat whose last message is the assistant's) or `prompt` and
    `completion`; plain text has an empty prompt. A row that asks and has no answer has an
    empty one. tools: the functions that a chat's assistant may call, as JSON schemas.
    rejected: of a preference pair, the text of the worse answer; the better one is the row's.
    desirable: of an unpaired preference, whether the answer is a good one.
    """

    prompt: str = ""
    completion: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    rejected: str | None = None
    desirable: bool | None = None


class Format(Protocol):
    """Reads rows of one layout."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row looks like this format (its columns and their types)."""

    def example(self, row: Mapping[str, Any]) -> Example:
        """Read a row; raise ValueError that says what is wrong with it."""


@runtime_checkable
class WritableFormat(Format, Protocol):
    """A format in which examples can be written too, for `adz data convert`."""

    def row(self, example: Example) -> dict[str, Any]:
        """The row that `example` reads as the same; ValueError when the layout cannot hold it."""


class Metric(Protocol):
    """Scores one answer."""

    def __call__(self, answer: str, reference: str) -> float:
        """A number, 0 to 1 for the metrics that we ship."""
