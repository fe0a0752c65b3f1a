"""The space of the factors beside each other: W = [s_1 B_1, ...] M [A_1; ...].

An adapter is the selector of its own block, so a weighted sum is a diagonal M and the result is
exact without any decomposition. Its rank is the sum of the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule


def concat(
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
    """A `protocols.MergeSpace` for rules that are sums; `rank` must hold the sum of the ranks."""
    present = [operand.a.shape[0] for operand in operands]
    blocks = torch.split(torch.eye(sum(present)), present)
    coordinates = FactorCoordinates([block.T for block in blocks], list(blocks), seed, module)
    mix = apply_rule(rule, coordinates, weights, options, whole=whole)
    a = torch.cat([operand.a for operand in operands])
    b = torch.cat([operand.b * operand.scale for operand in operands], dim=1) @ mix
    right = torch.linalg.qr(a.T, mode="r").R
    norm = torch.linalg.matrix_norm(b.double() @ right.T.double()).item()
    return MergedModule(a=a, b=b, error=0.0, norm=norm)
