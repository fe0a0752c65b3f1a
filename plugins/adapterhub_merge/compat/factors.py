"""PEFT's factor-wise merging: the rule runs on the A matrices, then on the B matrices.

For `--compat peft` only. The product of two sums has cross terms B_i A_j, so even a linear sum
is not the sum of the updates here (https://github.com/huggingface/peft/issues/3004).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule


def factors(
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
    """A `protocols.MergeSpace`. The operands' ranks are equal; one without the module has no
    part in it. A factor's weight is sqrt|w s|, and A carries the sign of w s."""
    present = [i for i, operand in enumerate(operands) if operand.a.shape[0]]
    scaled = [weights[i].item() * operands[i].scale for i in present]
    for_b = torch.tensor([math.sqrt(abs(weight)) for weight in scaled])
    for_a = torch.tensor([-1.0 if weight < 0 else 1.0 for weight in scaled]) * for_b
    # The identity as the other factor makes coordinates of the factor itself.
    same = [torch.eye(operands[i].a.shape[0]) for i in present]
    all_a = FactorCoordinates(same, [operands[i].a for i in present], seed, f"{module}.lora_A")
    all_b = FactorCoordinates([operands[i].b for i in present], same, seed, f"{module}.lora_B")
    a = apply_rule(rule, all_a, for_a, options, whole=whole)
    b = apply_rule(rule, all_b, for_b, options, whole=whole)
    products = (b.double().T @ b.double()) * (a.double() @ a.double().T)
    return MergedModule(a=a, b=b, error=0.0, norm=products.sum().clamp(min=0).sqrt().item())
