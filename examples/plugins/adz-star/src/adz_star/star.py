"""STAR: the tail of each update's spectrum is noise that merging adds up (arXiv:2502.10339).

Section 3: keep of each update the first singular values that make up a share `eta` of their sum,
scale these so that the sum is as before, and add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def star(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """deltas: (n, rows, cols) float32, the whole module; weights: (n,) of any sign. Options: eta.
    Returns (rows, cols) float32."""
    merged = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        kept = keep(s, options["eta"])
        scale = s.sum() / s[:kept].sum().clamp(min=torch.finfo(s.dtype).tiny)
        merged += weight * scale * (u[:, :kept] * s[:kept]) @ v[:kept]
    return merged


def keep(singular: torch.Tensor, eta: float) -> int:
    """How many of the descending singular values first reach the share `eta` of their sum."""
    reached = singular.cumsum(dim=0) >= eta * singular.sum() * (1 - 1e-6)
    return int(reached.nonzero()[0]) + 1
