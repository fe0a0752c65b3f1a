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
    shares = weights.tolist()
    elected = torch.zeros_like(deltas[0])
    for delta, share in zip(deltas, shares, strict=True):
        elected.add_(delta, alpha=share)
    # One vectorised pass an operation and no masks, which are several times slower in torch. The
    # smallest normal number turns a sum of 0 into plus.
    elected.add_(torch.finfo(torch.float32).tiny).sign_()
    total, divisor, agreeing = torch.zeros_like(elected), torch.zeros_like(elected), None
    for delta, share in zip(deltas, shares, strict=True):
        agreeing = torch.mul(delta, elected, out=agreeing).relu_()
        total.add_(agreeing, alpha=share)
        divisor.add_(agreeing.sign_(), alpha=share)
    divisor.clamp_(min=torch.finfo(torch.float32).tiny)
    return total.div_(divisor).mul_(elected).mul_(sum(shares))
