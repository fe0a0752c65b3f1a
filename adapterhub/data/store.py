"""Examples of a data set: in memory, or on disk from a size on that memory should not hold."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import IO, Any, overload

from adapterhub.home import adz_home
from adapterhub.protocols import Example

IN_MEMORY = 256_000_000
"""So many characters of text are kept in memory; a data set with more goes to disk."""

_FIELDS = tuple(field.name for field in fields(Example))


def keep(examples: Iterable[Example], limit: int | None = None) -> Sequence[Example]:
    """All of them: a list up to `limit` (IN_MEMORY) characters, else stored on disk."""
    limit = IN_MEMORY if limit is None else limit
    kept: list[Example] = []
    size = 0
    remaining = iter(examples)
    for example in remaining:
        kept.append(example)
        size += characters(example)
        if size > limit:
            return _store(kept, remaining)
    return kept


def select(examples: Sequence[Example], indices: Sequence[int]) -> Sequence[Example]:
    """Those at `indices`, in that order."""
    if isinstance(examples, StoredExamples):
        return examples.select(indices)
    return [examples[index] for index in indices]


def characters(example: Example) -> int:
    """How long all texts of a row are."""
    texts = (str(turn.get("content", "")) for turn in example.messages)
    return (
        len(example.prompt)
        + len(example.completion)
        + len(example.rejected or "")
        + sum(map(len, texts))
    )


class StoredExamples(Sequence[Example]):
    """Examples in a file without a name, which is gone with the last that uses it; in memory is
    where each begins (16 bytes an example)."""

    def __init__(self, file: IO[bytes], begins: array[int], lengths: array[int]) -> None:
        self._file = file
        self._begins = begins
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        # By position: several readers share the file.
        content = os.pread(self._file.fileno(), self._lengths[index], self._begins[index])
        values: list[Any] = [
            tuple(value) if isinstance(value, list) else value for value in json.loads(content)
        ]
        return Example(*values)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> StoredExamples:
        """Those at `indices` of the same file."""
        begins = array("q", (self._begins[index] for index in indices))
        return StoredExamples(
            self._file, begins, array("q", (self._lengths[index] for index in indices))
        )


def _store(kept: list[Example], remaining: Iterator[Example]) -> StoredExamples:
    home = adz_home()
    home.mkdir(parents=True, exist_ok=True)
    # Not in the system's folder for such files, which may itself be memory.
    file = tempfile.TemporaryFile(dir=home)  # noqa: SIM115
    begins, lengths, place = array("q"), array("q"), 0
    for examples in (kept, remaining):
        for example in examples:
            values = [getattr(example, name) for name in _FIELDS]
            content = json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")
            file.write(content)
            begins.append(place)
            lengths.append(len(content))
            place += len(content)
    file.flush()
    return StoredExamples(file, begins, lengths)
