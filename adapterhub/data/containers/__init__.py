"""Files and folders that hold rows, one module a kind, chosen by name and never by content.

Every reader yields rows one after the other with the place where each stands, and none holds
more of a file in memory than its kind demands: JSON lists are read whole, the others streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from adapterhub.errors import usage_error

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands (`train.jsonl line 3`), and the row."""

# Suffix -> module: `read(path)` yields rows, `write(path, rows)` makes the file.
_KIND_BY_SUFFIX = {
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json_list",
    ".csv": "table",
    ".tsv": "table",
    ".parquet": "parquet",
}
SUFFIXES = tuple(_KIND_BY_SUFFIX)
_FOLDER = "saved_folder"


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file or folder; AdzError with the line of what is wrong."""
    if not path.exists():
        hint = ""
        if len(path.parts) == 2 and not path.suffix:
            hint = f"a data set of the Hugging Face Hub is hub:{path}"
        raise usage_error(f"there is no data file {path}", hint)
    reader: Callable[[Path], Iterator[Row]] = _module(path).read
    return reader(path)


def write_rows(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """Write rows as the kind of file that the name of `path` says."""
    _module(path).write(path, rows)


def kind_of(path: Path) -> str:
    """What a path's name says that it is: `json_lines`, `json_list`, `table`, `parquet` or
    `saved_folder`, a directory that `datasets` saved."""
    if path.is_dir():
        return _FOLDER
    suffix = path.suffix.lower()
    if suffix not in _KIND_BY_SUFFIX:
        raise usage_error(
            f"{path} is no kind of file that holds rows", "known: " + ", ".join(SUFFIXES)
        )
    return _KIND_BY_SUFFIX[suffix]


def _module(path: Path) -> Any:
    return import_module(f"adapterhub.data.containers.{kind_of(path)}")
