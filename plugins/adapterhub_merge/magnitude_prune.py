"""The weighted sum after dropping each adapter's smallest elements, as PEFT names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.trim import trim

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def magnitude_prune(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Options: density, the share of each adapter's elements that is kept, the largest. They are
    not rescaled. Weights are those of the sum, of any sign."""
    kept = trim(deltas, coordinates.threshold(options["density"]))
    merged: torch.Tensor = torch.tensordot(weights, kept, dims=1)
    return merged
