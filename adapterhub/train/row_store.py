"""Token rows of a data set: in memory, or on disk from a size on that memory should not hold."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, overload

import numpy as np

from adapterhub.home import adz_home

IGNORED = -100
"""The label of a position that is not scored."""

IN_MEMORY = 4_000_000
"""So many tokens are kept in memory, about 36 bytes each; a data set with more goes to disk,
where one takes 4."""

_JUDGEMENTS = (None, False, True)


@dataclass(frozen=True, slots=True)
class Row:
    """One example as token ids; those before `start` are the prompt and are not scored.

    ids: of the prompt and the answer, the stop token at the end. rejected: of a preference pair,
    the ids of the worse answer to the same prompt, without the prompt, the stop token at the end.
    desirable: of a judged answer, whether it is a good one; else None. earlier: (begin, end) of
    answers in the prompt that are scored too, where `data.answers=all`; pairs and judged answers
    have none.
    """

    ids: tuple[int, ...]
    start: int
    rejected: tuple[int, ...] = ()
    desirable: bool | None = None
    earlier: tuple[tuple[int, int], ...] = ()

    @property
    def labels(self) -> list[int]:
        """One label a position. The first token has nothing before it to be predicted from."""
        first = max(self.start, 1)
        labels = [IGNORED] * first + list(self.ids[first:])
        for begin, end in self.earlier:
            labels[begin:end] = self.ids[begin:end]
        return labels


def keep_rows(rows: Iterable[Row], limit: int | None = None) -> Sequence[Row]:
    """All of them: a list up to `limit` (IN_MEMORY) tokens, else stored on disk."""
    limit = IN_MEMORY if limit is None else limit
    kept: list[Row] = []
    size = 0
    remaining = iter(rows)
    for row in remaining:
        kept.append(row)
        size += len(row.ids) + len(row.rejected)
        if size > limit:
            return _store(kept, remaining)
    return kept


class StoredRows(Sequence[Row]):
    """Rows in a file without a name, which is gone with the last that uses it; in memory is where
    each begins and how long it is (16 bytes a row). lengths: tokens of each row."""

    def __init__(self, file: IO[bytes], begins: array[int], lengths: array[int]) -> None:
        self._file = file
        self._begins = begins
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        begin, end = self._begins[place], self._begins[place + 1]
        # By position: several readers share the file.
        return _unpack(os.pread(self._file.fileno(), end - begin, begin))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))


def _store(kept: list[Row], remaining: Iterator[Row]) -> StoredRows:
    home = adz_home()
    home.mkdir(parents=True, exist_ok=True)
    # Not in the system's folder for such files, which may itself be memory.
    file = tempfile.TemporaryFile(dir=home)  # noqa: SIM115
    begins, lengths = array("q", [0]), array("q")
    for rows in (kept, remaining):
        for row in rows:
            content = _pack(row)
            file.write(content)
            begins.append(begins[-1] + len(content))
            lengths.append(len(row.ids))
        kept.clear()
    file.flush()
    return StoredRows(file, begins, lengths)


def _pack(row: Row) -> bytes:
    """int32: start, judgement, the numbers of earlier answers and of tokens, then these."""
    head = [row.start, _JUDGEMENTS.index(row.desirable), len(row.earlier), len(row.ids)]
    spans = [place for span in row.earlier for place in span]
    return np.array([*head, *spans, *row.ids, *row.rejected], dtype=np.int32).tobytes()


def _unpack(content: bytes) -> Row:
    values: list[int] = np.frombuffer(content, dtype=np.int32).tolist()
    start, judgement, spans, count = values[:4]
    begin = 4 + 2 * spans
    earlier = tuple(zip(values[4:begin:2], values[5:begin:2], strict=True))
    ids, rejected = tuple(values[begin : begin + count]), tuple(values[begin + count :])
    return Row(ids, start, rejected, _JUDGEMENTS[judgement], earlier)
