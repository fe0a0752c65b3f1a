"""A merge rule: the median of each element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates


def median(
    deltas: torch.Tensor,
    weights: torch.Tensor,
    coordinates: Coordinates,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """deltas: (n, rows, cols), weights: (n,); at the default weights 1/n the plain median.

    Between the two middle values of an even number it is their mean.
    """
    count = len(deltas)
    ordered = (deltas * weights[:, None, None] * count).sort(dim=0).values
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
