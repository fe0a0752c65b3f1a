"""The shared core of all factors: W = U M V with orthonormal U and V, and M of R x R.

U and V are the singular vectors of the stacked factors, as in Core Space (arXiv:2509.17786), so
the coordinates of an elementwise rule are pinned. R is the sum of the ranks. Nothing of the size
of the module's weight is ever built: O((m + n) R^2 + R^3) time, O((m + n) R) memory. Sums are
exact here, and the SVD of M gives the best adapter of any rank (Eckart-Young).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule
from adapterhub_merge.stack import Stack


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
    left = Stack([operand.b.T for operand in operands], [operand.scale for operand in operands])
    right = Stack([operand.a for operand in operands], [1.0] * len(operands))
    coordinates = FactorCoordinates(
        [block.T.float() for block in left.coordinates],
        [block.float() for block in right.coordinates],
        seed,
        module,
    )
    mix = apply_rule(rule, coordinates, weights, options, whole=whole)
    # R x R only, so double precision is free and the tail of the spectrum is exact.
    u, s, vh = torch.linalg.svd(mix.double(), full_matrices=False)
    root = s[:rank, None].sqrt()
    return MergedModule(
        a=right.lift(root * vh[:rank]),
        b=left.lift(root * u[:, :rank].T).T,
        error=s[rank:].norm().item(),
        norm=s.norm().item(),
    )
