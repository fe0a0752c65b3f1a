"""DELLA: drop by rank of magnitude, rescale, elect a sign, disjoint mean (arXiv:2406.11617).

MagPrune ranks the elements within their row, the weights of one output: a block of rows holds
all that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.consensus import disjoint_mean

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def della(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the mean probability to be kept; epsilon, how far the probability of the
    smallest of a row lies below it, and that of the largest above; seed, which the coordinates'
    random numbers are keyed by. epsilon is smaller where a probability would leave [0, 1]. What
    is kept is divided by its probability. The weights are those of `ties`."""
    density = options["density"]
    epsilon = min(options["epsilon"], density, 1 - density)
    kept = torch.empty_like(deltas)
    for adapter, delta in enumerate(deltas):
        probability = _ranks(delta).mul_(2 * epsilon).add_(density - epsilon)
        chosen = coordinates.uniform(adapter) < probability
        kept[adapter] = torch.where(chosen, delta / probability, 0.0)
    return disjoint_mean(kept, weights)


def _ranks(delta: torch.Tensor) -> torch.Tensor:
    """(rows, cols): 0 for the smallest magnitude of a row, 1 for the largest, evenly between."""
    order = delta.abs().argsort(dim=1, stable=True)
    steps = torch.linspace(0, 1, delta.shape[1]) if delta.shape[1] > 1 else torch.tensor([0.5])
    return torch.empty_like(delta).scatter_(1, order, steps.expand_as(delta))
