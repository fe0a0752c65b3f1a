"""The elements of the weight update, compressed by the full SVD of each module.

For `--compat peft`: its `svd` and `*_svd` types. The result is the best one of its rank, at a
cost that grows with the cube of the module's side; `dense` is nearly as good at a hundredth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule


def svd(
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
    """A `protocols.MergeSpace`. An operand without the module has no part in it."""
    present = [i for i, operand in enumerate(operands) if operand.a.shape[0]]
    left = [operands[i].b * operands[i].scale for i in present]
    coordinates = FactorCoordinates(left, [operands[i].a for i in present], seed, module)
    delta = apply_rule(rule, coordinates, weights[present], options, whole=whole)
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    return MergedModule(
        a=vh[:rank],
        b=u[:, :rank] * s[:rank],
        error=s[rank:].double().norm().item(),
        norm=s.double().norm().item(),
    )
