"""TIES: trim, elect a sign, disjoint mean (arXiv:2306.01708).

The paper has no weights; they come first here, as in mergekit: they count in the election, and
the mean divides by the weights of those that agree. So only the ratios of the weights matter.
The trim is per adapter and module; elements of the same magnitude stay together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the share of each adapter's elements that the trim keeps."""
    weights = weights[:, None, None]
    floor = coordinates.threshold(options["density"])[:, None, None]
    kept = torch.where(deltas.abs() >= floor, deltas * weights, 0.0)
    elected = torch.where(kept.sum(dim=0) >= 0, 1.0, -1.0)
    agree = (kept * elected) > 0
    divisor = (weights * agree).sum(dim=0)
    return torch.where(agree, kept, 0.0).sum(dim=0) / torch.where(divisor > 0, divisor, 1.0)
