"""Rows that ask and are not answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.chats import read_tools, read_turns, tools_column
from adapterhub_formats.columns import text_column

_ANSWERS = ("completion", "chosen", "rejected", "messages", "label")


class Prompt:
    """`{"prompt": ...}`: a text, or a list of messages that ends with the user."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is a prompt and nothing that could be its answer."""
        asks = isinstance(row.get("prompt"), str | list)
        return asks and not any(name in row for name in _ANSWERS)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The prompt with an empty answer."""
        if not isinstance(row.get("prompt"), list):
            return Example(prompt=text_column(row, "prompt"))
        turns = read_turns(row, "prompt")
        if not turns or turns[-1]["role"] not in ("user", "tool"):
            raise ValueError("the last message is not the user's")
        empty = {"role": "assistant", "content": ""}
        return Example(messages=(*turns, empty), tools=read_tools(row))

    def row(self, example: Example) -> dict[str, Any]:
        """The prompt."""
        if not example.messages:
            return {"prompt": example.prompt}
        return {"prompt": [dict(turn) for turn in example.messages[:-1]], **tools_column(example)}
