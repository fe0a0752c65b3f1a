"""Rows of plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.columns import as_texts, text_column


class Text:
    """`{"text": "..."}`: a completion without a prompt."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is a text."""
        return isinstance(row.get("text"), str)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The text as a completion."""
        return Example(completion=text_column(row, "text"))

    def row(self, example: Example) -> dict[str, Any]:
        """The text; a ValueError where there is a prompt, which would then be learnt too."""
        prompt, text = as_texts(example)
        if prompt:
            raise ValueError("a prompt is not learnt, plain text is")
        return {"text": text}
