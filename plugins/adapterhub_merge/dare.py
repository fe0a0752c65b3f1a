"""DARE with a linear sum: drop at random and rescale (arXiv:2311.03099)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def dare(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the share of the elements kept, each divided by the density, so that the
    expectation is the weighted sum; seed, which the coordinates' random numbers are keyed by.
    Weights are those of the sum, of any sign."""
    density = options["density"]
    merged = torch.zeros_like(deltas[0])
    for adapter, (delta, weight) in enumerate(zip(deltas, weights, strict=True)):
        # A mask of 0.0 and 1.0: torch.where over one of booleans takes ten times as long.
        kept = coordinates.uniform(adapter).lt_(density)
        merged.add_(kept.mul_(delta), alpha=float(weight) / density)
    return merged
