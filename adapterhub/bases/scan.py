"""Reading the values of a safetensors file once, from its beginning to its end, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import EXIT_VERIFICATION, AdzError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The unsigned type of the same size, and the bits of the exponent: all set in NaN and Inf. Without
# its sign, whatever is as large as these is one of the two.
FLOATS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_CHUNK = 2**18
"""Bytes; a multiple of every element's size."""

Span = tuple[str, int, int]
"""A tensor's name, and the bytes [start, end) of the file."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor, or a part of a large one.

    data: its bytes, until the next piece is asked for. largest: the bits of its largest element
    without the sign; of its largest byte where the dtype is none of `FLOATS`.
    """

    name: str
    data: memoryview
    largest: int


def read_pieces(path: Path, tensors: Mapping[str, TensorInfo]) -> Iterator[Piece]:
    """Every byte of every tensor in the order of the file. Memory is bounded by a few MiB.

    Raises AdzError (exit code 3) for a file that ends early.
    """
    # One buffer for all: memory that is new for each tensor costs more than the reading.
    buffer, scratch = bytearray(_CHUNK), bytearray(_CHUNK)
    with path.open("rb") as file:
        for dtype, spans in _windows(tensors):
            first, size = spans[0][1], spans[-1][2] - spans[0][1]
            window = memoryview(buffer)[:size]
            file.seek(first)
            if file.readinto(window) != size:
                raise AdzError(f"{path} ends early", exit_code=EXIT_VERIFICATION)
            for (name, start, end), largest in zip(
                spans,
                _largest(window, scratch, dtype, [s - first for _, s, _ in spans]),
                strict=True,
            ):
                yield Piece(name, window[start - first : end - first], largest)


def is_broken(dtype: str, largest: int) -> bool:
    """Whether an element this large is NaN or Inf."""
    return dtype in FLOATS and largest >= FLOATS[dtype][1]


def _windows(tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[str, list[Span]]]:
    """The tensors' bytes as they follow each other, a dtype and at most a chunk at once: an
    adapter has hundreds of small tensors."""
    dtype, spans = "", list[Span]()
    for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
        for start in range(info.start, info.end, _CHUNK):
            end = min(start + _CHUNK, info.end)
            follows = spans and (info.dtype, start) == (dtype, spans[-1][2])
            if spans and not (follows and end - spans[0][1] <= _CHUNK):
                yield dtype, spans
                spans = []
            dtype = info.dtype
            spans.append((name, start, end))
    if spans:
        yield dtype, spans


def _largest(window: memoryview, scratch: bytearray, dtype: str, starts: list[int]) -> list[int]:
    # Imported late: `adz ls` must not pay for it.
    import numpy as np

    kind = np.dtype(FLOATS[dtype][0] if dtype in FLOATS else "u1")
    bits: NDArray[np.unsignedinteger] = np.frombuffer(window, dtype=kind)
    if dtype in FLOATS:
        unsigned = np.frombuffer(scratch, dtype=kind, count=bits.size)
        mask = np.array((1 << (8 * kind.itemsize - 1)) - 1, dtype=kind)
        bits = np.bitwise_and(bits, mask, out=unsigned)
    return [int(v) for v in np.maximum.reduceat(bits, [s // kind.itemsize for s in starts])]
