"""What every format asks of a row's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
