"""Iso-C: the weighted sum with a flat spectrum (arXiv:2502.04959)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.spectral import significant_svd

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def iso_c(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Every singular value of sum_i w_i D_i becomes their mean, over the rank of the sum. Weights
    are of any sign; the same for all is the paper's alpha."""
    u, s, vh = significant_svd(torch.tensordot(weights, deltas, dims=1))
    mean = s.sum() / max(1, len(s))
    return (mean * u @ vh).float()
