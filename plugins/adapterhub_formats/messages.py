"""Rows that are chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.chats import check_answered, read_tools, read_turns, tools_column
from adapterhub_formats.columns import as_chat


class Messages:
    """`{"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}`, with the
    functions that may be called in `tools`."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is a list of messages, and no second answer."""
        return isinstance(row.get("messages"), list) and "rejected" not in row

    def example(self, row: Mapping[str, Any]) -> Example:
        """The chat; its last message is what is learnt."""
        turns = read_turns(row, "messages")
        check_answered(turns)
        return Example(messages=turns, tools=read_tools(row))

    def row(self, example: Example) -> dict[str, Any]:
        """The chat; prompt and completion are one turn of it."""
        messages = [dict(message) for message in as_chat(example)]
        return {"messages": messages, **tools_column(example)}
