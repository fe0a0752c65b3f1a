"""DARE with TIES: drop at random and rescale, elect a sign, disjoint mean (arXiv:2311.03099)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.consensus import disjoint_mean

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def dare_ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the share of the elements kept, each divided by the density; seed, which
    the coordinates' random numbers are keyed by. The weights are those of `ties`."""
    density = options["density"]
    kept = torch.stack(
        [
            coordinates.uniform(adapter).lt_(density).mul_(delta)
            for adapter, delta in enumerate(deltas)
        ]
    )
    return disjoint_mean(kept.div_(density), weights)
