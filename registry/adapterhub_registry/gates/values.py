"""The gate for the values of `adapter_model.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.scan import is_broken, read_pieces
from adapterhub.errors import EXIT_VERIFICATION, AdzError


def scan_values(path: Path, tensors: Mapping[str, TensorInfo]) -> set[str]:
    """The names of the tensors whose every element is zero, of either sign.

    tensors: float tensors only. Raises AdzError (exit code 3) for the first that holds NaN or
    Inf. Memory is bounded by a few MiB.
    """
    zeros = set(tensors)
    for piece in read_pieces(path, tensors):
        if is_broken(tensors[piece.name].dtype, piece.largest):
            raise AdzError(
                f"{path.name} is refused: tensor {piece.name} holds NaN or Inf",
                "its training diverged: train it again",
                exit_code=EXIT_VERIFICATION,
            )
        if piece.largest:
            zeros.discard(piece.name)
    return zeros
