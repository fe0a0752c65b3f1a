"""The aligned coordinates of KnOTS (arXiv:2410.19735, figure 1).

[W_1, ..., W_n] = U S [V_1, ..., V_n]: the updates side by side share one U S, and the rule works
on the V_i, (R, n) each. The result U S V_merged has at most rank R, the sum of the ranks. All of
it comes from the factors; no update is ever built. The rule sees V_i, as the paper says; the
authors' configurations give it S V_i, which trims other elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule
from adapterhub_merge.stack import Stack, products, reciprocal, roots


def knots(
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
    # In the basis of all B the updates side by side are [L_1 A_1, ..., L_n A_n].
    cores = [core.T for core in left.coordinates]
    beside = [
        core @ products([operand.a]) @ core.T for core, operand in zip(cores, operands, strict=True)
    ]
    s, turn = roots(torch.stack(beside).sum(dim=0))
    align = reciprocal(s)[:, None] * turn.T
    coordinates = FactorCoordinates(
        [(align @ core).float() for core in cores],
        [operand.a for operand in operands],
        seed,
        module,
    )
    merged = apply_rule(rule, coordinates, weights, options, whole=whole)
    values, vectors = roots(s[:, None] * products([merged]) * s)
    root, vectors = values[:rank, None].sqrt(), vectors[:, :rank].T
    return MergedModule(
        a=(reciprocal(root) * vectors * s).float() @ merged,
        b=left.lift(root * (vectors @ turn.T)).T,
        error=values[rank:].norm().item(),
        norm=values.norm().item(),
    )
