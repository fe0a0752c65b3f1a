"""The elements of the weight update itself, for rules that look at single weights.

One module's update is built, block of rows by block, and compressed by a randomised SVD
(Halko, Martinsson and Tropp, arXiv:0909.4061). It starts from the singular vectors of the weighted
sum, which come from the factors: a rule bends the sum, so that one iteration from there finds
more than two from random vectors do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, merged_blocks
from adapterhub_merge.stack import Stack, products, reciprocal, roots

_OVERSAMPLING = 16
# Below this share of the squared norm the lost square is no difference of large numbers any more.
_MEASURED = 1e-2
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
    m, n = coordinates.shape
    start, known = _start(operands, weights, min(rank + _OVERSAMPLING, m, n), module)
    delta = torch.empty(m, n)
    sketch = torch.empty(m, start.shape[1])
    square = 0.0
    for rows, block in merged_blocks(rule, coordinates, weights, options, whole=whole):
        # While the block is in the cache: its place, its share of the sketch, and its norm.
        delta[rows] = block
        torch.mm(block, start, out=sketch[rows])
        square += _square(block)
    return compress(delta, sketch, square, rank, iterations=1 if known else 2)


def compress(
    delta: torch.Tensor, sketch: torch.Tensor, square: float, rank: int, *, iterations: int
) -> MergedModule:
    """Nearly the best product of `rank`.

    sketch: (m, k), delta times a first guess of its row space; square: delta's squared norm.
    """
    basis = torch.linalg.qr(sketch).Q
    for _ in range(iterations):
        basis = torch.linalg.qr(delta @ torch.linalg.qr((basis.T @ delta).T).Q).Q
    small = basis.T @ delta
    values, vectors = roots(products([small]))
    values, vectors = values[:rank], vectors[:, :rank]
    root = values.sqrt()
    a = (vectors * reciprocal(root)).T.float() @ small
    b = basis @ (vectors * root).float()
    lost = square - float(values.square().sum())
    if lost < _MEASURED * square:
        lost = sum(
            _square(delta[start : start + _ERROR_ROWS] - b[start : start + _ERROR_ROWS] @ a)
            for start in range(0, delta.shape[0], _ERROR_ROWS)
        )
    return MergedModule(a=a, b=b, error=lost**0.5, norm=square**0.5)


def _start(
    operands: Sequence[Factors], weights: torch.Tensor, width: int, module: str
) -> tuple[torch.Tensor, bool]:
    """(n, width): the leading right singular vectors of the weighted sum, and random ones where
    it has no more. Whether all are known."""
    left = Stack([operand.b.T for operand in operands], [operand.scale for operand in operands])
    right = Stack([operand.a for operand in operands], [1.0] * len(operands))
    parts = zip(weights.tolist(), left.coordinates, right.coordinates, strict=True)
    mix = torch.stack([weight * (b.T @ a) for weight, b, a in parts]).sum(dim=0)
    known = right.lift(torch.linalg.svd(mix, full_matrices=False).Vh[:width])
    key = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "little")
    generator = torch.Generator().manual_seed(key)
    missing = width - known.shape[0]
    random = torch.randn(missing, known.shape[1], generator=generator)
    return torch.cat([known, random / known.shape[1] ** 0.5]).T, missing == 0


def _square(block: torch.Tensor) -> float:
    """The squared norm: float32 within a row, float64 over the rows."""
    rows = torch.linalg.vector_norm(block, dim=1)
    return float(rows.double().square().sum())
