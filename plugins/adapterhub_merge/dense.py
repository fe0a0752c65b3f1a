"""The elements of the weight update itself, for rules that look at single weights.

One module's update is built, block of rows by block, and compressed by a randomised SVD
(Halko, Martinsson and Tropp, arXiv:0909.4061). The error is measured against the update itself,
not estimated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule

_OVERSAMPLING = 16
_POWER_ITERATIONS = 2
_ERROR_ROWS = 256


def dense(
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
    """A `protocols.MergeSpace`; memory: one (m, n) float32 and the sketch."""
    left = [operand.b * operand.scale for operand in operands]
    coordinates = FactorCoordinates(left, [operand.a for operand in operands], seed, module)
    delta = apply_rule(rule, coordinates, weights, options, whole=whole)
    b, a = compress(delta, rank, module)
    lost = norm = 0.0
    for start in range(0, delta.shape[0], _ERROR_ROWS):
        rows = slice(start, start + _ERROR_ROWS)
        norm += _square(delta[rows])
        lost += _square(delta[rows] - b[rows] @ a)
    return MergedModule(a=a, b=b, error=lost**0.5, norm=norm**0.5)


def compress(delta: torch.Tensor, rank: int, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, k) and (k, n) with k = min(rank, m, n): nearly the best product."""
    sketch = _range(delta, min(rank + _OVERSAMPLING, *delta.shape), module)
    u, s, vh = torch.linalg.svd(sketch.T @ delta, full_matrices=False)
    root = s[:rank].sqrt()
    return sketch @ (u[:, :rank] * root), root[:, None] * vh[:rank]


def _range(delta: torch.Tensor, width: int, module: str) -> torch.Tensor:
    """(m, width): an orthonormal basis of where `delta` is largest."""
    key = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "little")
    generator = torch.Generator().manual_seed(key)
    basis: torch.Tensor = torch.linalg.qr(
        delta @ torch.randn(delta.shape[1], width, generator=generator)
    ).Q
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(delta @ torch.linalg.qr(delta.T @ basis).Q).Q
    return basis


def _square(block: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(block, dtype=torch.float64).square())
