"""The rules of PEFT 0.21's `add_weighted_adapter` (`peft.utils.merge_utils`).

The sign is elected before the weights come in, and the mean divides by the number of adapters
that agree. Exactly int(density * elements) elements are kept, whatever their magnitudes. PEFT
draws from torch's global generator in the order of the base's modules; we draw by seed, module
and adapter, so a random mask is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def magnitude_prune(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """The weighted sum of the largest elements. Options: density."""
    return _sum(_largest(deltas, options["density"]), weights)


def ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density; majority_sign_method, `total` (of the sums) or `frequency`."""
    return _agreeing(_largest(deltas, options["density"]), weights, options)


def dare_linear(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """The weighted sum of random elements, divided by the density. Options: density, seed."""
    return _sum(_random(deltas, coordinates, options["density"]), weights)


def dare_ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, seed; majority_sign_method, as in `ties`."""
    return _agreeing(_random(deltas, coordinates, options["density"]), weights, options)


def _largest(deltas: torch.Tensor, density: float) -> torch.Tensor:
    if density == 1:
        return deltas
    flat = deltas.flatten(1)
    # The same call as PEFT's, so that equal magnitudes at the edge are told apart alike.
    chosen = flat.abs().topk(int(density * flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat).scatter(1, chosen, flat.gather(1, chosen)).view_as(deltas)


def _random(deltas: torch.Tensor, coordinates: Coordinates, density: float) -> torch.Tensor:
    if density == 1:
        return deltas
    drawn = torch.stack([coordinates.uniform(adapter) for adapter in range(len(deltas))])
    return torch.where(drawn < density, deltas, 0.0) / density


def _sum(deltas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = torch.tensordot(weights, deltas, dims=1)
    return total


def _agreeing(
    deltas: torch.Tensor, weights: torch.Tensor, options: Mapping[str, Any]
) -> torch.Tensor:
    signs = deltas.sign()
    votes = signs if options["majority_sign_method"] == "frequency" else deltas
    agree = signs == torch.where(votes.sum(dim=0) >= 0, 1.0, -1.0)
    return _sum(deltas * agree, weights) / agree.sum(dim=0).clamp(min=1)
