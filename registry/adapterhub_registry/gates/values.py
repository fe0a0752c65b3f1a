"""Scanning the values of a safetensors file without torch."""

from __future__ import annotations

from collections.abc import Mapping
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


def scan_values(path: Path, tensors: Mapping[str, TensorInfo]) -> set[str]:
    """The names of the tensors whose every element is zero, of either sign.

    tensors: float tensors only. Raises AdzError (exit code 3) for the first that holds NaN or
    Inf. Memory is bounded by a few MiB.
    """
    zeros = set()
    # One buffer for all: memory that is new for each tensor costs more than the scan.
    buffer = bytearray(_CHUNK)
    with path.open("rb") as file:
        for name, info in tensors.items():
            largest = _largest(file, info, buffer)
            if largest >= FLOATS[info.dtype][1]:
                raise AdzError(
                    f"{path.name} is refused: tensor {name} holds NaN or Inf",
                    "its training diverged: train it again",
                    exit_code=EXIT_VERIFICATION,
                )
            if largest == 0:
                zeros.add(name)
    return zeros


def _largest(file: BufferedReader, info: TensorInfo, buffer: bytearray) -> int:
    """The largest element's bits without the sign."""
    # Imported late: `adz ls` must not pay for it.
    import numpy as np

    kind = np.dtype(FLOATS[info.dtype][0])
    magnitude = np.array((1 << (8 * kind.itemsize - 1)) - 1, dtype=kind)
    largest = 0
    file.seek(info.start)
    for start in range(info.start, info.end, len(buffer)):
        size = min(len(buffer), info.end - start)
        if file.readinto(memoryview(buffer)[:size]) != size:
            raise AdzError(f"{file.name} ends early", exit_code=EXIT_VERIFICATION)
        bits = np.frombuffer(buffer, dtype=kind, count=size // kind.itemsize)
        largest = max(largest, int((bits & magnitude).max()))
    return largest
