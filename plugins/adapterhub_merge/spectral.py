"""What the rules of singular vectors share. float64: their matrices are small."""

from __future__ import annotations

import torch

# Singular values below this share of the largest are rounding of float32 coordinates.
_RESOLUTION = 2.0**-18


def significant_svd(
    matrix: torch.Tensor, size: float | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rows, k), (k,) falling, (k, cols), float64: the singular triples above the rounding, none
    of a zero matrix. size: the norm of what `matrix` was computed from, where it is larger."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    largest = s.max().item() if size is None and len(s) else size or 0.0
    kept = int((s > _RESOLUTION * largest).sum())
    return u[:, :kept], s[:kept], vh[:kept]


def nearest_isometry(matrix: torch.Tensor) -> torch.Tensor:
    """P Q^T of the SVD P S Q^T: the orthogonal Procrustes solution. Directions that `matrix`
    does not have stay zero, so that it is unique and turns with the bases."""
    p, _, qt = significant_svd(matrix)
    return p @ qt
