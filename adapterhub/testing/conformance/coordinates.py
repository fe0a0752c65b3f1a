"""Coordinates that merge rules are tested in: simple, slow, and built from nothing of ours."""

from __future__ import annotations

import torch


class PlainCoordinates:
    """A `protocols.Coordinates` over rows of `whole`, (n, rows, cols) float32.

    Random numbers depend on adapter and position alone, whatever the block.
    """

    def __init__(self, whole: torch.Tensor, rows: slice) -> None:
        self._whole = whole
        self._rows = rows
        self.module = "model.layers.0.mlp.up_proj"
        self.elements = whole[0].numel()

    def threshold(self, density: float) -> torch.Tensor:
        """See `protocols.Coordinates.threshold`."""
        return self.kth_largest(max(1, int(density * self.elements)))

    def kth_largest(self, count: int) -> torch.Tensor:
        """See `protocols.Coordinates.kth_largest`."""
        ordered = self._whole.abs().flatten(1).sort(dim=1, descending=True).values
        return ordered[:, count - 1]

    def uniform(self, adapter: int) -> torch.Tensor:
        """See `protocols.Coordinates.uniform`."""
        generator = torch.Generator().manual_seed(adapter)
        return torch.rand(self._whole[0].shape, generator=generator)[self._rows].clone()
