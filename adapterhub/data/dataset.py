"""Reading a data set: JSON lines or a JSON list, in any format that a plugin knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from adapterhub import protocols, specs
from adapterhub.errors import AdzError, usage_error
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Example

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands (`train.jsonl line 3`), and the row."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A file's examples in its order.

    `sha256` is `sha256:hex` of the file's bytes; `file` is its base name, without a path.
    """

    examples: list[Example]
    format: str
    sha256: str
    rows: int
    file: str

    def record(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        return {"file": self.file, "sha256": self.sha256, "rows": self.rows, "format": self.format}


def read_examples(
    path: Path,
    format_name: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
) -> DataSet:
    """Read `path`; the format is `format_name`, or the one that recognises the first row.

    `columns` says which of the file's columns stands for one of the format's:
    `{"prompt": "question"}`. Raises AdzError with the file and the line of what is wrong.
    """
    content = _read(path)
    rows = [(where, _renamed(row, columns or {}, where)) for where, row in _rows(path, content)]
    if not rows:
        raise AdzError(f"{path} is empty", "a data set needs at least one row")
    name = _known(format_name) if format_name else _recognise(rows[0])
    plugins = load_plugins()
    layout: protocols.Format = plugins.load_implementation(plugins.get(specs.Format, name))()
    examples = []
    for where, row in rows:
        try:
            examples.append(layout.example(row))
        except ValueError as error:
            raise AdzError(
                f"{where}: {error}", f"read as {name}; --format reads it as another"
            ) from error
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return DataSet(examples, name, digest, len(rows), path.name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise usage_error(f"there is no data file {path}") from None
    except IsADirectoryError:
        raise usage_error(f"{path} is a directory, not a data file") from None


def _rows(path: Path, content: bytes) -> Iterator[Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = content.count(b"\n", 0, error.start) + 1
        raise AdzError(f"{path} line {at} is not UTF-8", "save the file as UTF-8") from error
    if text.lstrip().startswith("["):
        yield from _list_rows(path, text)
        return
    # Not splitlines(): JSON text may hold U+2028 and the like, which are no line ends there.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path} line {number}"
            yield where, _mapping(_parse(line, where), where)


def _list_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise AdzError(f"{path} line {error.lineno} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise AdzError(f"{path} is no data set: {error}") from error
    for number, value in enumerate(values, 1):
        where = f"{path} row {number}"
        yield where, _mapping(value, where)


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise AdzError(
            f"{where} is not JSON: {error.msg} at column {error.colno}",
            "a data file has one JSON object a line",
        ) from error
    except (ValueError, RecursionError) as error:
        raise AdzError(f"{where} is no row: {error}") from error


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise AdzError(
            f"{where} is {json.dumps(value)[:40]}, not an object with columns",
            'a row is such as {"prompt": "...", "completion": "..."}',
        )
    return value


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Mapping[str, Any]:
    if not columns:
        return row
    for theirs in columns.values():
        if theirs not in row:
            there = ", ".join(row)
            raise AdzError(f"{where}: the column {theirs!r} is not there; there are {there}")
    taken = set(columns.values())
    kept = {name: value for name, value in row.items() if name not in taken}
    return kept | {ours: row[theirs] for ours, theirs in columns.items()}


def _known(name: str) -> str:
    # `prompt-completion` is how people write it.
    return load_plugins().get(specs.Format, name.replace("-", "_")).name


def _recognise(first: Row) -> str:
    where, row = first
    plugins = load_plugins()
    formats = plugins.components(specs.Format)
    found = [
        name
        for name, component in formats.items()
        if cast("protocols.Format", plugins.load_implementation(component)()).matches(row)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise usage_error(
            f"{where} fits {len(found)} formats: {', '.join(sorted(found))}",
            "name one with --format",
        )
    known = "; ".join(f"{name} ({formats[name].summary})" for name in sorted(formats))
    raise usage_error(
        f"{where} has the columns {_columns(row)}, which no format knows",
        f"formats: {known}; -o data.columns.prompt=NAME of adz train names a column",
    )


def _columns(row: Mapping[str, Any]) -> str:
    """The names of a row's columns; a number in a column of text is a common mistake."""
    names = [n if isinstance(v, str | list) else f"{n} (not text)" for n, v in row.items()]
    return ", ".join(names) or "(none)"
