"""Model Breadcrumbs: the weighted sum without the smallest and the largest (arXiv:2312.06795)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def breadcrumbs(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: gamma, the share of each adapter's elements that is dropped for being the largest;
    density, the share kept below them. The paper's beta is 1 - gamma - density; gamma gives way
    where nothing would be left for beta. The paper's alpha is the same weight for all."""
    kept = max(1, int(options["density"] * coordinates.elements))
    outliers = min(int(options["gamma"] * coordinates.elements), coordinates.elements - kept)
    ceilings = coordinates.kth_largest(outliers + 1)
    floors = coordinates.kth_largest(outliers + kept)
    merged = torch.zeros_like(deltas[0])
    for delta, weight, floor, ceiling in zip(deltas, weights, floors, ceilings, strict=True):
        size = delta.abs()
        merged += torch.where((size >= floor) & (size <= ceiling), delta, 0.0) * weight
    return merged
