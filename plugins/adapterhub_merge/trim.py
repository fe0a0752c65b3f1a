"""Keeping the largest elements: the first step of TIES and of others."""

from __future__ import annotations

import torch


def trim(deltas: torch.Tensor, floors: torch.Tensor) -> torch.Tensor:
    """(n, rows, cols): `deltas`, with 0 for each magnitude below its adapter's floor.

    floors: (n,) float32. What is exactly as large is kept.
    """
    kept = torch.empty_like(deltas)
    # hardshrink drops what is at most its bound, in one vectorised pass; torch.where takes ten.
    bounds = torch.nextafter(floors, torch.zeros(())).tolist()
    for delta, bound, out in zip(deltas, bounds, kept, strict=True):
        torch.ops.aten.hardshrink.out(delta, bound, out=out)
    return kept
