"""The second half of TIES: elect a sign, average those that agree (arXiv:2306.01708)."""

from __future__ import annotations

import torch


def disjoint_mean(deltas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(rows, cols): elementwise the weighted mean of those with the elected sign, times the sum
    of all weights.

    deltas: (n, rows, cols), already trimmed or dropped; weights: (n,), none negative. The elected
    sign is that of the weighted sum, plus where it is 0. The paper's mean has no weights and a
    factor lambda: with equal weights lambda is their sum, and 1/n each is the plain mean.
    """
    weights = weights[:, None, None]
    weighted = deltas * weights
    elected = torch.where(weighted.sum(dim=0) >= 0, 1.0, -1.0)
    agree = (weighted * elected) > 0
    divisor = (weights * agree).sum(dim=0)
    total = torch.where(agree, weighted, 0.0).sum(dim=0) * weights.sum()
    return total / torch.where(divisor > 0, divisor, 1.0)
