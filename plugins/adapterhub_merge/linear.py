"""The weighted sum of the weight updates (task arithmetic, arXiv:2212.04089)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def linear(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """sum_i w_i D_i, with any sign of w_i. The weights are never normalised."""
    merged: torch.Tensor = torch.tensordot(weights, deltas, dims=1)
    return merged
