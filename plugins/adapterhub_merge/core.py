"""The shared core of all factors: W = U M V with orthonormal U and V, and M of R x R.

U and V come from the QR of the stacked factors, R is the sum of the ranks. Nothing of the size
of the module's weight is ever built: O((m + n) R^2 + R^3) time, O((m + n) R) memory. Sums are
exact here, and the SVD of M gives the best adapter of any rank (Eckart-Young).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule


def core(
    operands: Sequence[Factors],
    weights: torch.Tensor,
    rule: MergeRule,
    options: Mapping[str, Any],
    *,
    rank: int,
    seed: int,
    module: str,
    whole: bool = False,
) -> MergedModule:
    """A `protocols.MergeSpace`; the compression is optimal."""
    ranks = [operand.a.shape[0] for operand in operands]
    left, from_b = torch.linalg.qr(torch.cat([o.b * o.scale for o in operands], dim=1))
    right, from_a = torch.linalg.qr(torch.cat([o.a for o in operands]).T)
    rows = list(torch.split(from_b, ranks, dim=1))
    columns = [block.T for block in torch.split(from_a, ranks, dim=1)]
    coordinates = FactorCoordinates(rows, columns, seed, module)
    mix = apply_rule(rule, coordinates, weights, options, whole=whole)
    # R x R only, so double precision is free and the tail of the spectrum is exact.
    u, s, vh = torch.linalg.svd(mix.double(), full_matrices=False)
    root = s[:rank].sqrt()
    return MergedModule(
        a=(root[:, None] * vh[:rank]).float() @ right.T,
        b=left @ (u[:, :rank] * root).float(),
        error=s[rank:].norm().item(),
        norm=s.norm().item(),
    )
