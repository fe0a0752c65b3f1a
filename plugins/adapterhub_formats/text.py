"""Rows of plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.columns import text_column


class Text:
    """`{"text": "..."}`: a completion without a prompt."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is a text."""
        return isinstance(row.get("text"), str)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The text as a completion."""
        return Example(completion=text_column(row, "text"))
