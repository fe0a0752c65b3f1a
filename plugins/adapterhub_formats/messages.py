"""Rows that are chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.columns import text_column

ROLES = ("system", "user", "assistant")


class Messages:
    """`{"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}`."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there is a list of messages."""
        return isinstance(row.get("messages"), list)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The chat; its last message is what is learnt."""
        messages = row.get("messages")
        if not isinstance(messages, list):
            raise ValueError("the column 'messages' is not a list")
        turns = tuple(_turn(message, n) for n, message in enumerate(messages, 1))
        if not turns or turns[-1]["role"] != "assistant":
            raise ValueError("the last message is not the assistant's")
        if len(turns) == 1:
            raise ValueError("there is no message before the assistant's")
        return Example(messages=turns)


def _turn(message: Any, number: int) -> Mapping[str, str]:
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is not a mapping with role and content")
    if message.get("role") not in ROLES:
        raise ValueError(
            f"message {number} has the role {message.get('role')!r}, not one of " + ", ".join(ROLES)
        )
    try:
        return {"role": message["role"], "content": text_column(message, "content")}
    except ValueError as error:
        raise ValueError(f"message {number}: {error}") from None
