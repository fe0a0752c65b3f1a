"""TIES: trim, elect a sign, disjoint mean (arXiv:2306.01708).

The paper has no weights; they come first here, as in mergekit: they count in the election and in
the mean. The trim is per adapter and module; elements of the same magnitude stay together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.consensus import disjoint_mean

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the share of each adapter's elements that the trim keeps. The ratios of
    the weights decide, and their sum is the paper's lambda: it scales the result."""
    floor = coordinates.threshold(options["density"])[:, None, None]
    return disjoint_mean(torch.where(deltas.abs() >= floor, deltas, 0.0), weights)
