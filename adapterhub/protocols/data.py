"""Rows of a data set, how they are read and how answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Example:
    """One row, as every format yields it.

    Either `messages` (a chat whose last message is the assistant's) or `prompt` and
    `completion`; plain text has an empty prompt.
    """

    prompt: str = ""
    completion: str = ""
    messages: tuple[Mapping[str, str], ...] = ()


class Format(Protocol):
    """Reads rows of one layout."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row looks like this format (its columns and their types)."""

    def example(self, row: Mapping[str, Any]) -> Example:
        """Read a row; raise ValueError that says what is wrong with it."""


class Metric(Protocol):
    """Scores one answer."""

    def __call__(self, answer: str, reference: str) -> float:
        """A number, 0 to 1 for the metrics that we ship."""
