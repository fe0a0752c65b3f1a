"""Scanning the values of a safetensors file without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import EXIT_VERIFICATION, AdzError

# The unsigned type of the same size, and the bits of the exponent: all set in NaN and Inf.
FLOATS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_CHUNK = 2**20


def scan_values(path: Path, tensors: Mapping[str, TensorInfo]) -> set[str]:
    """The names of the tensors whose every element is zero, of either sign.

    tensors: float tensors only. Raises AdzError (exit code 3) for the first that holds NaN or
    Inf. Memory is bounded by a few MiB.
    """
    # Imported late: `adz ls` must not pay for it.
    import numpy as np

    zeros = set()
    for name, info in tensors.items():
        kind, exponent = FLOATS[info.dtype]
        mask = np.array(exponent, dtype=kind)
        size = mask.itemsize
        sign = np.array(1, dtype=kind) << np.array(8 * size - 1, dtype=kind)
        only_zeros = True
        for start in range(info.start, info.end, _CHUNK * size):
            count = min(_CHUNK, (info.end - start) // size)
            bits = np.fromfile(path, dtype=kind, count=count, offset=start)
            if bool(((bits & mask) == mask).any()):
                raise AdzError(
                    f"{path.name} is refused: tensor {name} holds NaN or Inf",
                    "its training diverged: train it again",
                    exit_code=EXIT_VERIFICATION,
                )
            only_zeros = only_zeros and not bool((bits & ~sign).any())
        if only_zeros:
            zeros.add(name)
    return zeros
