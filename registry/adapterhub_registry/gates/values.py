"""Scanning the values of a safetensors file without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import EXIT_VERIFICATION, AdzError

# The unsigned type of the same size, and the bits of the exponent: all set in NaN and Inf. Without
# its sign, whatever is as large as these is one of the two.
FLOATS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_CHUNK = 2**20
"""Bytes; a multiple of every element's size."""

Piece = tuple[str, int, int]
"""A tensor's name, and the bytes [start, end) of the file."""


def scan_values(path: Path, tensors: Mapping[str, TensorInfo]) -> set[str]:
    """The names of the tensors whose every element is zero, of either sign.

    tensors: float tensors only. Raises AdzError (exit code 3) for the first that holds NaN or
    Inf. Memory is bounded by a few MiB.
    """
    largest = dict.fromkeys(tensors, 0)
    # One buffer for all: memory that is new for each tensor costs more than the scan.
    buffer = bytearray(_CHUNK)
    with path.open("rb") as file:
        for dtype, pieces in _windows(tensors):
            for name, value in _largest(file, dtype, pieces, buffer):
                if value >= FLOATS[dtype][1]:
                    raise AdzError(
                        f"{path.name} is refused: tensor {name} holds NaN or Inf",
                        "its training diverged: train it again",
                        exit_code=EXIT_VERIFICATION,
                    )
                largest[name] = max(largest[name], value)
    return {name for name, value in largest.items() if value == 0}


def _windows(tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[str, list[Piece]]]:
    """The tensors' bytes as they follow each other, a dtype and at most a chunk at once: an
    adapter has hundreds of small tensors."""
    dtype, pieces = "", list[Piece]()
    for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
        for start in range(info.start, info.end, _CHUNK):
            end = min(start + _CHUNK, info.end)
            follows = pieces and (info.dtype, start) == (dtype, pieces[-1][2])
            if pieces and not (follows and end - pieces[0][1] <= _CHUNK):
                yield dtype, pieces
                pieces = []
            dtype = info.dtype
            pieces.append((name, start, end))
    if pieces:
        yield dtype, pieces


def _largest(
    file: BufferedReader, dtype: str, pieces: list[Piece], buffer: bytearray
) -> Iterator[tuple[str, int]]:
    """The largest element's bits without the sign, by piece."""
    # Imported late: `adz ls` must not pay for it.
    import numpy as np

    kind = np.dtype(FLOATS[dtype][0])
    magnitude = np.array((1 << (8 * kind.itemsize - 1)) - 1, dtype=kind)
    first = pieces[0][1]
    size = pieces[-1][2] - first
    file.seek(first)
    if file.readinto(memoryview(buffer)[:size]) != size:
        raise AdzError(f"{file.name} ends early", exit_code=EXIT_VERIFICATION)
    bits = np.frombuffer(buffer, dtype=kind, count=size // kind.itemsize) & magnitude
    starts = [(start - first) // kind.itemsize for _, start, _ in pieces]
    values = np.maximum.reduceat(bits, starts).tolist()
    return zip((name for name, _, _ in pieces), values, strict=True)
