"""Rows of the Stanford Alpaca layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.columns import text_column


class Alpaca:
    """`{"instruction": ..., "input": ..., "output": ...}` as one turn of a chat."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether instruction and output are texts."""
        return isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The instruction, then the input if there is one, as the user's message."""
        instruction = text_column(row, "instruction")
        given = text_column(row, "input", optional=True)
        question = f"{instruction}\n\n{given}" if given else instruction
        return Example(
            messages=(
                {"role": "user", "content": question},
                {"role": "assistant", "content": text_column(row, "output")},
            )
        )
