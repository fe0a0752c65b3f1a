"""The rules of mergekit 0.1.5: its generalised task arithmetic, on the weight updates.

What is dropped is told apart as mergekit does, by a sort of the whole module. The weights come
in before the election, and `normalize` divides by the sum of those that agree. `rescale` keeps
the L1 norm of each update, where the papers divide by the probability. mergekit draws from
torch's global generator; we draw by seed, module and adapter, so a random mask is another one.
Its `lambda` is `--scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub.errors import usage_error

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates

# mergekit does not rescale where a norm is below this.
_TINY = 1e-7


def task_arithmetic(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: normalize."""
    return _sum(deltas, weights, options)


def ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, normalize."""
    kept = torch.stack([_between(delta, options["density"], 0.0) for delta in deltas])
    return _consensus(kept, weights, options)


def dare_linear(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, seed, rescale, normalize."""
    return _sum(_dare(deltas, coordinates, options), weights, options)


def dare_ties(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, seed, rescale, normalize."""
    return _consensus(_dare(deltas, coordinates, options), weights, options)


def breadcrumbs(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, gamma, consensus, normalize."""
    gamma = options["gamma"]
    kept = torch.stack([_between(delta, options["density"], gamma) for delta in deltas])
    return (_consensus if options["consensus"] else _sum)(kept, weights, options)


def della(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, seed, epsilon, rescale, consensus, normalize."""
    density, epsilon = options["density"], options["epsilon"]
    if density < 1:
        if not epsilon < density < 1 - epsilon:
            raise usage_error(
                f"the density {density:g} must lie between epsilon {epsilon:g} and 1 - epsilon",
                "give a smaller options.epsilon",
            )
        deltas = torch.stack(
            [
                _rescaled(
                    delta, coordinates.uniform(i) < _chances(delta, density, epsilon), options
                )
                for i, delta in enumerate(deltas)
            ]
        )
    return (_consensus if options["consensus"] else _sum)(deltas, weights, options)


def _dare(
    deltas: torch.Tensor, coordinates: Coordinates, options: Mapping[str, Any]
) -> torch.Tensor:
    density = options["density"]
    if density == 1:
        return deltas
    kept = [
        _rescaled(delta, coordinates.uniform(adapter) < density, options)
        for adapter, delta in enumerate(deltas)
    ]
    return torch.stack(kept)


def _between(delta: torch.Tensor, density: float, gamma: float) -> torch.Tensor:
    """Only the share `density` below the largest share `gamma`, which gives way to it."""
    if density == 1:
        return delta
    flat = delta.flatten()
    count = int(density * flat.numel())
    if gamma:
        order = flat.abs().sort().indices
        first = max(0, flat.numel() - count - int(gamma * flat.numel()))
        chosen = order[first : first + count]
    else:
        # Which of equal ones go is the sort's choice, and it is another one the other way.
        chosen = flat.abs().argsort(descending=True)[: max(1, count)]
    return torch.zeros_like(flat).scatter(0, chosen, flat[chosen]).view_as(delta)


def _chances(delta: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
    """(rows, cols): density - epsilon for the smallest of a row, density + epsilon for the
    largest."""
    ranks = delta.abs().argsort(dim=1).argsort(dim=1).float()
    share = ranks / max(1, delta.shape[1] - 1)
    return (density - epsilon) + share * 2 * epsilon


def _rescaled(delta: torch.Tensor, mask: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
    kept = delta * mask
    before, after = delta.abs().sum(), kept.abs().sum()
    if not options["rescale"] or before < _TINY or after < _TINY:
        return kept
    return kept * (before / after)


def _sum(deltas: torch.Tensor, weights: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
    total: torch.Tensor = torch.tensordot(weights, deltas, dims=1)
    divisor = weights.sum()
    if options["normalize"] and divisor.abs() >= 1e-8:
        total = total / divisor
    return total


def _consensus(
    deltas: torch.Tensor, weights: torch.Tensor, options: Mapping[str, Any]
) -> torch.Tensor:
    weights = weights[:, None, None]
    weighted = deltas * weights
    agree = weighted.sign() == torch.where(weighted.sum(dim=0) >= 0, 1.0, -1.0)
    total = (weighted * agree).sum(dim=0)
    if options["normalize"]:
        divisor = (weights * agree).sum(dim=0)
        total = total / torch.where(divisor == 0, 1.0, divisor)
    return total
