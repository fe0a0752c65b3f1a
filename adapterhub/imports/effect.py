"""Which modules of an adapter change nothing: their second factor is all zeros."""

from __future__ import annotations

from pathlib import Path

from adapterhub.bases.headers import TensorInfo, read_header

_SECOND = (".lora_B.weight", ".lora_B", ".lora_embedding_A")
_CHUNK = 2**20


def idle_modules(weights: Path) -> tuple[int, int]:
    """How many of a LoRA's modules change nothing, and how many it has; (0, 0) for another
    method."""
    # Imported late: torch-free, but not for free.
    import numpy as np

    def is_zero(info: TensorInfo) -> bool:
        pieces = range(info.start, info.end, _CHUNK)
        sizes = (min(_CHUNK, info.end - start) for start in pieces)
        return not any(
            np.fromfile(weights, np.uint8, size, offset=start).any()
            for start, size in zip(pieces, sizes, strict=True)
        )

    factors = [info for name, info in read_header(weights).items() if name.endswith(_SECOND)]
    return sum(map(is_zero, factors)), len(factors)
