"""Rows with one answer that is good or bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.prompt_completion import PromptCompletion

# A CSV file holds texts only.
_WORDS = {"true": True, "false": False}


class UnpairedPreference:
    """`{"prompt": ..., "completion": ..., "label": true}`: texts, or lists of messages."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether an answer is judged."""
        answered = {name: value for name, value in row.items() if name != "label"}
        return "label" in row and PromptCompletion().matches(answered)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The answer, and whether it is a good one."""
        label = row.get("label")
        judgement = _WORDS.get(label.lower()) if isinstance(label, str) else label
        if not isinstance(judgement, bool):
            raise ValueError(f"the column 'label' holds {label!r}, not true or false")
        return replace(PromptCompletion().example(row), desirable=judgement)

    def row(self, example: Example) -> dict[str, Any]:
        """The two columns and the label."""
        return {**PromptCompletion().row(example), "label": example.desirable}
