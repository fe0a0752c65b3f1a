"""CSV with a header, and TSV: every cell is a text."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub.data.containers import Row
from adapterhub.errors import AdzError


def read(path: Path) -> Iterator[Row]:
    """Row by row; a row is named by the line that it begins on."""
    # A field may be a whole document.
    csv.field_size_limit(2**31 - 1)
    begins = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file, delimiter=_delimiter(path), strict=True)
            header = next(table, [])
            _check_header(path, header)
            begins = table.line_num + 1
            for cells in table:
                where = f"{path} line {begins}"
                if cells and len(cells) != len(header):
                    raise AdzError(
                        f"{where} has {len(cells)} cells, the header {len(header)}",
                        'a cell with the delimiter in it stands in quotes: "a, b"',
                    )
                if cells:
                    yield where, dict(zip(header, cells, strict=True))
                begins = table.line_num + 1
    except csv.Error as error:
        raise AdzError(f"{path} line {begins} is malformed: {error}") from error
    except UnicodeDecodeError as error:
        raise AdzError(
            f"{path} is not UTF-8 from line {begins} on", "save the file as UTF-8"
        ) from error


def write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """A header from the first row, and a line a row; AdzError for what is no text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter=_delimiter(path), lineterminator="\n")
        header: list[str] = []
        for row in rows:
            if not header:
                header = list(row)
                table.writerow(header)
            if list(row) != header:
                raise AdzError(f"{path}: the rows differ in their columns", "write .jsonl instead")
            table.writerow([_cell(path, name, value) for name, value in row.items()])


def _check_header(path: Path, header: list[str]) -> None:
    if len(set(header)) < len(header) or "" in header:
        raise AdzError(f"{path} line 1 is no header: {', '.join(header)[:80]}")


def _cell(path: Path, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        raise AdzError(
            f"{path}: the column {name!r} holds {type(value).__name__}, a cell is a text",
            "write .jsonl instead",
        )
    return value


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","
