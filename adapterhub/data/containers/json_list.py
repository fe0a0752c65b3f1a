"""One JSON list of objects. JSON lines under this name are read as such."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub.data.containers import Row, json_lines
from adapterhub.errors import AdzError


def read(path: Path) -> Iterator[Row]:
    """Row by row, each with the line that it begins on; the text is in memory."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = content.count(b"\n", 0, error.start) + 1
        raise AdzError(f"{path} line {at} is not UTF-8", "save the file as UTF-8") from error
    if not text.lstrip().startswith("["):
        yield from json_lines.read(path)
        return
    decoder, place, line, number = json.JSONDecoder(), text.index("[") + 1, 1, 0
    counted = 0
    try:
        place = _skip(text, place)
        while text[place : place + 1] != "]":
            if number:
                place = _skip(text, _expect(text, place))
            number += 1
            line += text.count("\n", counted, place)
            counted = place
            value, place = decoder.raw_decode(text, place)
            where = f"{path} row {number} (line {line})"
            yield where, json_lines.as_row(value, where)
            place = _skip(text, place)
    except json.JSONDecodeError as error:
        raise AdzError(f"{path} line {error.lineno} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise AdzError(f"{path} is no data set: {error}") from error
    if text[place + 1 :].strip():
        raise AdzError(f"{path} goes on after the end of its list")


def write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """A list with one line a row."""
    with path.open("w", encoding="utf-8") as file:
        between = "[\n"
        for row in rows:
            file.write(between + json.dumps(row, ensure_ascii=False))
            between = ",\n"
        file.write("\n]\n" if between == ",\n" else "[]\n")


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\n\r":
        place += 1
    return place


def _expect(text: str, place: int) -> int:
    if text[place : place + 1] != ",":
        raise json.JSONDecodeError("expecting ',' or ']'", text, place)
    return place + 1
