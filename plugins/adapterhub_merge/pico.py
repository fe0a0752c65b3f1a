"""Pico: output directions that many adapters share count less (arXiv:2604.16826).

The B of all adapters beside each other have the singular values sigma_j. A direction's sharing is
s_j = sigma_j^2 / sum_k sigma_k^2, and each B is scaled by 1 / (1 + (n - 1) s_j) along it. After the
merge the update gets the adapters' mean norm back. With alpha in B: an update is one B A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.core import core


def pico(
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
    """A `protocols.MergeSpace`: the calibrated adapters in the space `core`. The norm of the
    result is sum_i |w_i| |D_i|, the mean norm where the weights are 1/n, as in the paper."""
    merged = core(
        _calibrated(operands),
        weights,
        rule,
        options,
        rank=rank,
        seed=seed,
        module=module,
        whole=whole,
    )
    norms = [_norm(operand) for operand in operands]
    wanted = sum(w.abs().item() * norm for w, norm in zip(weights, norms, strict=True))
    gamma = wanted / merged.norm if merged.norm > 0 else 0.0
    return MergedModule(
        a=merged.a, b=merged.b * gamma, error=merged.error * gamma, norm=merged.norm * gamma
    )


def _calibrated(operands: Sequence[Factors]) -> list[Factors]:
    ranks = [operand.b.shape[1] for operand in operands]
    basis, stacked = torch.linalg.qr(torch.cat([o.b * o.scale for o in operands], dim=1))
    u, sigma, _ = torch.linalg.svd(stacked.double(), full_matrices=False)
    energy = sigma.square()
    tasks = sum(r > 0 for r in ranks)
    alpha = 1 / (1 + (tasks - 1) * energy / energy.sum().clamp(min=torch.finfo().tiny))
    calibrated = basis @ ((u * alpha) @ (u.T @ stacked.double())).float()
    blocks = torch.split(calibrated, ranks, dim=1)
    return [replace(o, b=block, scale=1.0) for o, block in zip(operands, blocks, strict=True)]


def _norm(operand: Factors) -> float:
    triangle = torch.linalg.qr(operand.a.T, mode="r").R
    return abs(operand.scale) * float(torch.linalg.matrix_norm(operand.b @ triangle.T))
