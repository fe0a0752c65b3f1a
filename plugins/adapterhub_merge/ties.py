"""TIES: trim, elect a sign, disjoint mean (arXiv:2306.01708).

The paper has no weights; they come first here, as in mergekit: they count in the election and in
the mean. The trim is per adapter and module; elements of the same magnitude stay together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapterhub_merge.consensus import disjoint_mean
from adapterhub_merge.trim import trim

if TYPE_CHECKING:
    import torch

    from adapterhub.protocols import Coordinates


def ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the share of each adapter's elements that the trim keeps. The ratios of
    the weights decide, and their sum is the paper's lambda: it scales the result."""
    return disjoint_mean(trim(deltas, coordinates.threshold(options["density"])), weights)
