"""Rows with a prompt and what should follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.chats import check_answered, read_tools, read_turns, tools_column
from adapterhub_formats.columns import as_texts, text_column


class PromptCompletion:
    """`{"prompt": "Q: ...\\nA:", "completion": " ..."}`: joined as they are.

    Both may be lists of messages, as TRL writes chats.
    """

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether both columns are texts or both are chats, without a judgement."""
        both = [row.get("prompt"), row.get("completion")]
        alike = any(all(isinstance(part, kind) for part in both) for kind in (str, list))
        return alike and "label" not in row

    def example(self, row: Mapping[str, Any]) -> Example:
        """The two texts unchanged, or one chat."""
        if isinstance(row.get("prompt"), list):
            turns = read_turns(row, "prompt") + read_turns(row, "completion")
            check_answered(turns)
            return Example(messages=turns, tools=read_tools(row))
        return Example(prompt=text_column(row, "prompt"), completion=text_column(row, "completion"))

    def row(self, example: Example) -> dict[str, Any]:
        """The two columns."""
        if example.messages:
            return chat_columns(example)
        prompt, completion = as_texts(example)
        if not prompt:
            raise ValueError("plain text has no prompt")
        return {"prompt": prompt, "completion": completion}


def chat_columns(example: Example) -> dict[str, Any]:
    """A chat as the messages before the answer and the answer."""
    turns = [dict(turn) for turn in example.messages]
    return {"prompt": turns[:-1], "completion": turns[-1:], **tools_column(example)}
