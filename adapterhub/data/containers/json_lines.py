"""JSON lines: one object a line, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub.data.containers import Row
from adapterhub.errors import AdzError


def read(path: Path) -> Iterator[Row]:
    """Line by line. Lines end with a line feed only: JSON text may hold U+2028 and the like."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path} line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise AdzError(f"{where} is not UTF-8", "save the file as UTF-8") from error
            if text.strip():
                yield where, as_row(_parse(text, where), where)


def write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """One line a row."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def as_row(value: Any, where: str) -> Mapping[str, Any]:
    """`value`, which a row must be: a JSON object."""
    if not isinstance(value, dict):
        raise AdzError(
            f"{where} is {json.dumps(value)[:40]}, not an object with columns",
            'a row is such as {"prompt": "...", "completion": "..."}',
        )
    return value


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise AdzError(
            f"{where} is not JSON: {error.msg} at column {error.colno}",
            "a .jsonl file has one JSON object a line, a .json file may be one list",
        ) from error
    except (ValueError, RecursionError) as error:
        raise AdzError(f"{where} is no row: {error}") from error
