"""The space of what the adapters' modules read: each update acts on its own inputs only.

Of all W the sum of w_i E|W x - D_i x|^2 over each adapter's own inputs x is least for
W = (sum_i w_i D_i G_i) H^-1 with G_i = E[x x^T] and H = sum_i w_i G_i (RegMean, arXiv:2212.09849).
In factors that is W = sum_i w_i (s_i B_i) (A_i G_i H^-1): the rank stays the sum of the ranks, and
since each G_i is a diagonal and a sketch, H is never built: H^-1 is Woodbury's identity, in
float64. O((m + n) R^2 + n R K + n K^2) time for K rows of all sketches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, InputMoments, MergedModule, MergeRule
from adapterhub_merge.coordinates import FactorCoordinates, apply_rule

# Inputs that are always zero must not divide by it.
_LEAST = 1e-30


class Moment:
    """A symmetric positive matrix, sketch^T sketch + diag(diagonal): (k, n) and (n,), float64."""

    def __init__(self, sketch: torch.Tensor, diagonal: torch.Tensor) -> None:
        self._sketch = sketch
        self._diagonal = diagonal

    @classmethod
    def shrunk(cls, moments: InputMoments, kept: float) -> Moment:
        """The share `kept` of what is off the diagonal; the diagonal as it is."""
        sketch, diagonal = moments.sketch.double(), moments.diagonal.double()
        left_out = (1 - kept) * sketch.square().sum(dim=0)
        return cls(kept**0.5 * sketch, diagonal + left_out)

    @classmethod
    def total(cls, terms: Sequence[Moment], weights: Sequence[float]) -> Moment:
        """The weighted sum."""
        pairs = list(zip(weights, terms, strict=True))
        sketch = torch.cat([weight**0.5 * term._sketch for weight, term in pairs])
        diagonal = torch.stack([weight * term._diagonal for weight, term in pairs]).sum(dim=0)
        return cls(sketch, diagonal)

    @property
    def mean(self) -> float:
        """Of the diagonal."""
        total = self._diagonal.sum() + self._sketch.square().sum()
        return total.item() / self._diagonal.numel()

    def lifted(self, amount: float) -> Moment:
        """With `amount` more on the diagonal."""
        return Moment(self._sketch, self._diagonal + amount)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """rows @ self, (r, n)."""
        return (rows @ self._sketch.T) @ self._sketch + rows * self._diagonal

    def quotient(self, rows: torch.Tensor) -> torch.Tensor:
        """rows @ self^-1, (r, n); the diagonal is above 0."""
        scaled = self._sketch / self._diagonal
        core = scaled @ self._sketch.T
        core.diagonal().add_(1)
        solved = torch.linalg.solve(core, (rows / self._diagonal) @ self._sketch.T, left=False)
        quotient: torch.Tensor = rows / self._diagonal - solved @ scaled
        return quotient


def inputs(
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
    """A `protocols.MergeSpace` for weighted sums. The rank is lowered at the least error of the
    outputs, E|W x|^2 over the adapters' inputs, and `error` and `norm` are roots of that.

    An operand that lacks the module has no say in it. Of the weights only the ratios count.
    Options: shrinkage, the share of the moments' off-diagonal part that is kept; ridge, what is
    added to the diagonals as a share of their mean: from 0, this rule, to plain averaging.
    """
    terms = {
        index: Moment.shrunk(operand.moments, options["shrinkage"])
        for index, operand in enumerate(operands)
        if operand.moments and weights[index] > 0
    }
    if not terms:
        m, n = operands[0].b.shape[0], operands[0].a.shape[1]
        return MergedModule(torch.zeros(0, n), torch.zeros(m, 0), error=0.0, norm=0.0)
    share = weights[list(terms)] / weights[list(terms)].sum()
    mean = Moment.total(list(terms.values()), share.tolist()).mean
    # On every term, so that the updates are averaged where nobody has inputs.
    ridge = max(options["ridge"] * mean, _LEAST)
    terms = {index: term.lifted(ridge) for index, term in terms.items()}
    total = Moment.total(list(terms.values()), share.tolist())
    a = [total.quotient(term.product(operands[i].a.double())) for i, term in terms.items()]
    blocks = torch.split(torch.eye(sum(map(len, a))), [len(rows) for rows in a])
    coordinates = FactorCoordinates([block.T for block in blocks], list(blocks), seed, module)
    mix = apply_rule(rule, coordinates, share, options, whole=whole)
    b = torch.cat([operands[i].b.double() * operands[i].scale for i in terms], dim=1)
    return compress(b @ mix.double(), torch.cat(a), total, rank)


def compress(b: torch.Tensor, a: torch.Tensor, moment: Moment, rank: int) -> MergedModule:
    """The best (b, a) of `rank` for inputs of this second moment: the outputs' principal
    directions, onto which b @ a is projected."""
    left, from_b = torch.linalg.qr(b)
    # from_b (a M a^T) from_b^T is the outputs' second moment in the basis `left`.
    outputs = from_b @ moment.product(a) @ a.T @ from_b.T
    squares, vectors = torch.linalg.eigh((outputs + outputs.T) / 2)
    squares, vectors = squares.clamp_min(0).flip(0), vectors.flip(1)[:, :rank]
    return MergedModule(
        a=(vectors.T @ from_b @ a).float().contiguous(),
        b=(left @ vectors).float().contiguous(),
        error=squares[rank:].sum().sqrt().item(),
        norm=squares.sum().sqrt().item(),
    )
