"""Rows with a prompt and what should follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.columns import text_column


class PromptCompletion:
    """`{"prompt": "Q: ...\\nA:", "completion": " ..."}`: joined as they are."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether both columns are texts."""
        return isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The two texts unchanged."""
        return Example(prompt=text_column(row, "prompt"), completion=text_column(row, "completion"))
