"""Spherical interpolation of two adapters (Shoemake, 1985), over all elements of a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates

# Beyond this cosine the arc is a straight line, or has no direction.
_COLLINEAR = 0.9995


def slerp(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """t, the way from the first to the second, is the second's share of the weights; their sum
    scales the result. Where one is zero, or both point the same or the opposite way, the
    interpolation is linear."""
    first, second = deltas.double()
    scale = weights.double().sum()
    t = weights[1].double() / scale
    norms = first.norm() * second.norm()
    cosine = (first * second).sum() / norms if norms > 0 else torch.ones_like(norms)
    if cosine.abs() > _COLLINEAR:
        between = torch.lerp(first, second, t)
    else:
        angle = cosine.acos()
        between = ((1 - t) * angle).sin() * first + (t * angle).sin() * second
        between /= angle.sin()
    merged: torch.Tensor = (scale * between).float()
    return merged
