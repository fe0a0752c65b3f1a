"""What every format asks of a row's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example


def text_column(row: Mapping[str, Any], column: str, *, optional: bool = False) -> str:
    """The text in `column`; a ValueError that names the column when there is none.

    An optional column may be missing, null or empty, and is then an empty text.
    """
    value = row.get(column)
    if value is None or value == "":
        if optional:
            return ""
        problem = "is empty" if column in row else "is not there"
        found = "" if column in row else f"; there are {', '.join(map(str, row)) or 'none'}"
        raise ValueError(f"the column {column!r} {problem}{found}")
    if not isinstance(value, str):
        raise ValueError(f"the column {column!r} holds {type(value).__name__}, not text")
    return value


def as_chat(example: Example) -> tuple[Mapping[str, Any], ...]:
    """The example as turns; a ValueError for plain text, which nobody asked for."""
    if example.messages:
        return example.messages
    if not example.prompt:
        raise ValueError("plain text has no question, so it is no chat")
    return (
        {"role": "user", "content": example.prompt},
        {"role": "assistant", "content": example.completion},
    )


def as_texts(example: Example) -> tuple[str, str]:
    """Prompt and completion; a ValueError for a chat, whose roles a text would lose."""
    if example.messages:
        raise ValueError("a chat has roles, which plain texts do not keep")
    return example.prompt, example.completion
