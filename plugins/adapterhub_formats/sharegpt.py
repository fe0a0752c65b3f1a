"""Rows of the ShareGPT layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.chats import check_answered, read_tools
from adapterhub_formats.columns import as_chat, text_column

# The words for a speaker that are met in data sets.
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "system": "system", "tool": "tool", "observation": "tool", "function_response": "tool",
    "function_call": "assistant",
}  # fmt: skip
_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


class ShareGpt:
    """`{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}`, with
    `system` and `tools` beside it; a `function_call` holds the JSON of name and arguments."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is a list of turns that say whom they are from."""
        turns = row.get("conversations")
        return isinstance(turns, list) and all(isinstance(t, dict) and "from" in t for t in turns)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The chat; its last turn is what is learnt."""
        turns = row.get("conversations")
        if not isinstance(turns, list):
            raise ValueError("the column 'conversations' is not a list")
        system = text_column(row, "system", optional=True)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [_message(turn, number) for number, turn in enumerate(turns, 1)]
        check_answered(messages)
        return Example(messages=tuple(messages), tools=read_tools(row))

    def row(self, example: Example) -> dict[str, Any]:
        """The turns, a system message among them."""
        turns = [_spoken(message) for message in as_chat(example)]
        tools = {"tools": json.dumps(list(example.tools))} if example.tools else {}
        return {"conversations": turns, **tools}


def _message(turn: Any, number: int) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {number} is not a mapping with from and value")
    speaker = turn.get("from")
    if speaker not in _ROLES:
        known = ", ".join(_ROLES)
        raise ValueError(f"turn {number} is from {speaker!r}, not from one of {known}")
    try:
        text = text_column(turn, "value")
        if speaker == "function_call":
            return {"role": "assistant", "content": "", "tool_calls": [_call(text)]}
    except ValueError as error:
        raise ValueError(f"turn {number}: {error}") from None
    return {"role": _ROLES[speaker], "content": text}


def _call(text: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
        function = {"name": call["name"], "arguments": call.get("arguments", {})}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("a function_call is not JSON with name and arguments") from None
    return {"type": "function", "function": function}


def _spoken(message: Mapping[str, Any]) -> dict[str, str]:
    calls = message.get("tool_calls", [])
    if not calls:
        return {"from": _SPEAKERS[message["role"]], "value": message["content"]}
    if len(calls) > 1 or message["content"]:
        raise ValueError("a turn of the sharegpt layout is one function call and nothing else")
    return {"from": "function_call", "value": json.dumps(calls[0]["function"])}
