"""Which modules of an adapter change nothing: their second factor is all zeros."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.scan import read_pieces

_SECOND = (".lora_B.weight", ".lora_B", ".lora_embedding_A")


def idle_modules(weights: Path, tensors: Mapping[str, TensorInfo]) -> tuple[int, int]:
    """How many of a LoRA's modules change nothing, and how many it has; (0, 0) for another
    method. tensors: the header of `weights`."""
    factors = {name for name in tensors if name.endswith(_SECOND)}
    # From the beginning to the end: hundreds of places in between take longer.
    pieces = read_pieces(weights, tensors) if factors else ()
    active = {piece.name for piece in pieces if piece.largest}
    return len(factors - active), len(factors)
