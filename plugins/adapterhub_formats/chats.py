"""Turns of a chat, as OpenAI's and Hugging Face's layouts write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.columns import text_column

ROLES = ("system", "user", "assistant", "tool")

Turns = tuple[Mapping[str, Any], ...]


def read_turns(row: Mapping[str, Any], column: str) -> Turns:
    """The messages in a column: role and content, and what belongs to tools."""
    messages = row.get(column)
    if not isinstance(messages, list):
        raise ValueError(f"the column {column!r} is not a list")
    return tuple(_turn(message, number) for number, message in enumerate(messages, 1))


def check_answered(turns: Sequence[Mapping[str, Any]]) -> None:
    """The last message is the assistant's, and there is one before it."""
    if not turns or turns[-1]["role"] != "assistant":
        raise ValueError("the last message is not the assistant's")
    if len(turns) == 1:
        raise ValueError("there is no message before the assistant's")


def read_tools(row: Mapping[str, Any]) -> Turns:
    """The functions in the column `tools`: a list of JSON schemas, or its JSON text."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise ValueError(f"the column 'tools' is not JSON: {error}") from None
    if not tools:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError("the column 'tools' is not a list of functions")
    return tuple(tools)


def tools_column(example: Example) -> dict[str, Any]:
    """The column `tools` where a chat has some."""
    return {"tools": [dict(tool) for tool in example.tools]} if example.tools else {}


def _turn(message: Any, number: int) -> Mapping[str, Any]:
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is not a mapping with role and content")
    # Arrow's tables give every message the keys of all.
    message = {key: value for key, value in message.items() if value is not None}
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"message {number} has the role {role!r}, not one of " + ", ".join(ROLES))
    try:
        calls = _tool_calls(message) if role == "assistant" else []
        content = text_column(message, "content", optional=bool(calls) or role == "tool")
    except ValueError as error:
        raise ValueError(f"message {number}: {error}") from None
    known = {"role", "content", "tool_calls", "name", "tool_call_id"}
    unknown = [key for key in message if key not in known]
    if unknown:
        # What a template would not be shown is not dropped in silence.
        raise ValueError(f"message {number} has the unknown key {unknown[0]!r}")
    extra = {key: message[key] for key in ("name", "tool_call_id") if key in message}
    return {"role": role, "content": content, **({"tool_calls": calls} if calls else {}), **extra}


def _tool_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError("tool_calls is not a list")
    return [_tool_call(call) for call in calls]


def _tool_call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("a tool call names no function")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            raise ValueError(f"the arguments of a tool call are not JSON: {error}") from None
    made = {"name": function["name"], "arguments": arguments}
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": made}
