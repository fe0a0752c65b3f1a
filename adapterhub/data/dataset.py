"""Reading a data set: rows of any container, in any format that a plugin knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

from adapterhub import protocols, specs
from adapterhub.data.containers import Row, read_rows
from adapterhub.data.hub import fetch_files, is_hub
from adapterhub.data.store import keep
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import canonical_json
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Example


@dataclass(frozen=True, slots=True)
class DataSet:
    """A source's examples in its order.

    `sha256` is `sha256:hex` of a file's bytes, and of the rows' canonical JSON where a source is
    not one file; `file` is its base name, without a path, or the Hub's name with the commit.
    """

    examples: Sequence[Example]
    format: str
    kind: specs.RowKind
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
    """Read `path`; the format is `format_name`, or the only one that recognises the first row.

    path: a file, a folder of `datasets`, or `hub:owner/name`. columns: which of the source's
    columns stands for one of the format's: `{"prompt": "question"}`. Raises AdzError with the
    file and the line of what is wrong. More text than memory should hold is kept on disk.
    """
    name, rows, digest = _open(path)
    rows = ((where, _renamed(row, columns or {}, where)) for where, row in rows)
    first = next(rows, None)
    if first is None:
        raise AdzError(f"{path} is empty", "a data set needs at least one row")
    component = _known(format_name) if format_name else _recognise(first)
    layout = cast("protocols.Format", load_plugins().load_implementation(component)())
    examples = keep(_examples(chain([first], rows), layout, component.name))
    known = load_plugins().name_of(component)
    return DataSet(examples, known, component.kind, digest.finish(), len(examples), name)


class _Digest:
    """Of a file's bytes, or of the rows as they pass where there is no one file."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._rows = hashlib.sha256()

    def follow(self, rows: Iterator[Row]) -> Iterator[Row]:
        for where, row in rows:
            self._rows.update(canonical_json(dict(row)) + b"\n")
            yield where, row

    def finish(self) -> str:
        if self._file is None:
            return f"sha256:{self._rows.hexdigest()}"
        with self._file.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _open(path: Path) -> tuple[str, Iterator[Row], _Digest]:
    """What a source is called, its rows and its digest, which is known when all were read."""
    if is_hub(str(path)):
        files = fetch_files(str(path))
        digest = _Digest(None)
        parts = chain.from_iterable(read_rows(file) for file in files.paths)
        return files.name, digest.follow(parts), digest
    rows = read_rows(path)
    if path.is_file():
        return path.name, rows, _Digest(path)
    digest = _Digest(None)
    return path.name, digest.follow(rows), digest


def _examples(rows: Iterator[Row], layout: protocols.Format, name: str) -> Iterator[Example]:
    for where, row in rows:
        try:
            yield layout.example(row)
        except ValueError as error:
            raise AdzError(
                f"{where}: {error}", f"read as {name}; --format reads it as another"
            ) from error


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


def _known(name: str) -> specs.Format:
    # `prompt-completion` is how people write it.
    distribution, separator, short = name.rpartition(":")
    plugins = load_plugins()
    if short not in plugins.components(specs.Format):
        short = short.replace("-", "_")
    return plugins.get(specs.Format, f"{distribution}{separator}{short}")


def _recognise(first: Row) -> specs.Format:
    where, row = first
    plugins = load_plugins()
    formats = plugins.components(specs.Format)
    found = [
        name
        for name, component in formats.items()
        if cast("protocols.Format", plugins.load_implementation(component)()).matches(row)
    ]
    if len(found) == 1:
        return formats[found[0]]
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
