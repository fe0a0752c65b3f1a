"""What can be known before a merge: how the adapters lie to each other, from their factors.

Everything comes from products of the factors, (R, R) a module, in O((m + n) R^2); no update is
built. Only the signs are sampled: at random elements, each computed from a row and a column.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapterhub.merge.engine import ModuleMerger, one_thread_each, over_modules
from adapterhub.merge.prepare import PreparedMerge
from adapterhub.protocols import Factors, Progress

SAMPLED_ELEMENTS = 4096
"""Of each module, for the signs."""
_NORM_SAMPLE = 16
# Adapters this far apart in norm are worth a line: the smaller one hardly counts in a sum.
_IMBALANCE = 10.0
_SHARES = (0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The adapters as they lie to each other, over all modules.

    norms: Frobenius, unweighted, by adapter. The matrices are n x n, by adapter: cosine of the
    updates; overlap of the subspaces that they read (inputs) and write (outputs), 1 where one
    lies in the other, with what chance would give beside it; conflict, the share of sampled
    elements with opposite signs (0.5 is chance). cancelled: the share of the weighted sum's
    magnitude that opposite signs take away, sampled. ranks: how many singular values of the
    weighted sum hold a share of its energy, the most that a module needs.
    """

    adapters: tuple[str, ...]
    norms: tuple[float, ...]
    weights: tuple[float, ...]
    modules: tuple[int, ...]
    cosine: list[list[float]]
    inputs: list[list[float]]
    outputs: list[list[float]]
    chance: tuple[float, float]
    conflict: list[list[float]]
    cancelled: float
    sampled: int
    ranks: dict[float, int]
    tail: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "norms": dict(zip(self.adapters, self.norms, strict=True)),
            "modules": dict(zip(self.adapters, self.modules, strict=True)),
            "cosine": self.cosine,
            "overlap_inputs": self.inputs,
            "overlap_outputs": self.outputs,
            "overlap_by_chance": {"inputs": self.chance[0], "outputs": self.chance[1]},
            "sign_conflict": self.conflict,
            "cancelled": self.cancelled,
            "sampled_elements": self.sampled,
            "sum_rank_for_energy": {f"{share:g}": rank for share, rank in self.ranks.items()},
            "sum_error_at_rank": {str(rank): error for rank, error in self.tail.items()},
        }


def diagnose(prepared: PreparedMerge, progress: Progress) -> Diagnosis:
    """Read every factor once."""
    shapes, choice = prepared.shapes, prepared.choice
    merger = ModuleMerger(choice, shapes, prepared.adapters, prepared.recipe.seed)
    weights = torch.tensor(choice.weights, dtype=torch.float64)

    def look(module: str) -> _Module:
        return _look(module, merger.read(module), weights)

    title = f"reading {len(shapes.modules)} modules"
    with one_thread_each():
        seen = over_modules(look, shapes.modules, prepared.recipe.workers, progress, title)
    return _summary(prepared, seen)


def imbalance(prepared: PreparedMerge) -> str | None:
    """The line of `level`, from a sample of modules."""
    names = sorted(prepared.shapes.modules)
    sample = names[:: max(1, len(names) // _NORM_SAMPLE)]
    shapes = prepared.shapes.modules
    squares = []
    with one_thread_each():
        for adapter in prepared.adapters:
            factors = (adapter.factors(module, shapes[module]) for module in sample)
            squares.append(sum(_square(one) for one in factors))
    return level(tuple(square**0.5 for square in squares), prepared)


def level(norms: Sequence[float], prepared: PreparedMerge) -> str | None:
    """One line where an adapter's norm is far above another's, with the weights that level them.

    Weights that were given are meant so, and some rules have none.
    """
    if "weights" in prepared.recipe.model_fields_set or not prepared.choice.rule.weighted:
        return None
    labels = [operand.label for operand in prepared.operands]
    large, small = (norms.index(pick(norms)) for pick in (max, min))
    if norms[small] == 0 or norms[large] < _IMBALANCE * norms[small]:
        return None
    inverse = [1 / norm for norm in norms]
    total = sum(prepared.choice.weights)
    even = ",".join(f"{total * one / sum(inverse):.3g}" for one in inverse)
    times = norms[large] / norms[small]
    return (
        f"the update of {labels[large]} is {times:.0f} times as large as that of "
        f"{labels[small]}: --weights {even} makes them equal"
    )


@dataclass(frozen=True, slots=True)
class _Module:
    """Of one module; n x n matrices in float64. present: who adapts it."""

    present: torch.Tensor
    inner: torch.Tensor
    inputs: torch.Tensor
    outputs: torch.Tensor
    chance: tuple[float, float]
    opposite: torch.Tensor
    kept: float
    gross: float
    values: torch.Tensor


def _look(module: str, factors: Sequence[Factors], weights: torch.Tensor) -> _Module:
    ranks = [one.a.shape[0] for one in factors]
    left = torch.cat([one.b.double() * one.scale for one in factors], dim=1)
    right = torch.cat([one.a.double() for one in factors])
    outputs, inputs = left.T @ left, right @ right.T
    mix = weights.repeat_interleave(torch.tensor(ranks))
    core = _root(outputs) * mix @ _root(inputs).T
    opposite, kept, gross = _signs(module, left, right, ranks, weights)
    pairs = torch.tensor(ranks).double()
    widest = torch.maximum(pairs[:, None], pairs[None]).mean().item()
    return _Module(
        present=pairs > 0,
        inner=_blocks(outputs * inputs, ranks),
        inputs=_overlap(inputs, ranks),
        outputs=_overlap(outputs, ranks),
        chance=(min(1.0, widest / right.shape[1]), min(1.0, widest / left.shape[0])),
        opposite=opposite,
        kept=kept,
        gross=gross,
        values=torch.linalg.svdvals(core),
    )


def _root(products: torch.Tensor) -> torch.Tensor:
    """L with L^T L = products: (R, R)."""
    squares, vectors = torch.linalg.eigh(products)
    root: torch.Tensor = squares.clamp(min=0).sqrt()[:, None] * vectors.T
    return root


def _blocks(values: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
    """The sums over the blocks of each pair of adapters: (n, n)."""
    rows = torch.split(values, list(ranks))
    sums = [torch.stack([b.sum() for b in torch.split(row, list(ranks), 1)]) for row in rows]
    return torch.stack(sums)


def _overlap(products: torch.Tensor, ranks: Sequence[int]) -> torch.Tensor:
    """(n, n): |U_i^T U_j|^2 over the smaller dimension, of orthonormal bases U."""
    blocks = [torch.split(row, list(ranks), 1) for row in torch.split(products, list(ranks))]
    white = [_whitening(blocks[i][i]) for i in range(len(ranks))]
    overlap = torch.zeros(len(ranks), len(ranks), dtype=torch.float64)
    for i, one in enumerate(white):
        for j, other in enumerate(white):
            smaller = min(one.shape[1], other.shape[1])
            if smaller:
                overlap[i, j] = (one.T @ blocks[i][j] @ other).square().sum() / smaller
    return overlap


def _whitening(products: torch.Tensor) -> torch.Tensor:
    """T such that X T is orthonormal, given X^T X: (r, k), k the rank above the rounding."""
    if not products.numel():
        return products
    squares, vectors = torch.linalg.eigh(products)
    kept = squares > squares[-1] * 2.0**-40
    white: torch.Tensor = vectors[:, kept] / squares[kept].sqrt()
    return white


def _signs(
    module: str,
    left: torch.Tensor,
    right: torch.Tensor,
    ranks: Sequence[int],
    weights: torch.Tensor,
) -> tuple[torch.Tensor, float, float]:
    """At sampled elements: opposite signs of each pair, and the magnitudes with and without."""
    key = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "little")
    generator = torch.Generator().manual_seed(key)
    rows = torch.randint(left.shape[0], (SAMPLED_ELEMENTS,), generator=generator)
    columns = torch.randint(right.shape[1], (SAMPLED_ELEMENTS,), generator=generator)
    terms = left[rows] * right.T[columns]
    values = torch.stack([part.sum(dim=1) for part in torch.split(terms, list(ranks), 1)])
    signs = values.sign()
    against = SAMPLED_ELEMENTS - signs @ signs.T
    weighted = values * weights[:, None]
    kept, gross = weighted.sum(dim=0).abs().sum().item(), weighted.abs().sum().item()
    return against / 2, kept, gross


def _square(factors: Factors) -> float:
    a, b = factors.a.double(), factors.b.double()
    return float(factors.scale**2 * ((b.T @ b) * (a @ a.T)).sum())


def _summary(prepared: PreparedMerge, seen: Sequence[_Module]) -> Diagnosis:
    inner = torch.stack([one.inner for one in seen]).sum(dim=0)
    norms = inner.diagonal().clamp(min=0).sqrt()
    both = torch.stack([one.present[:, None] & one.present[None] for one in seen]).double()
    count = both.sum(dim=0).clamp(min=1)
    scale = (norms[:, None] * norms[None]).clamp(min=torch.finfo(torch.float64).tiny)
    # Elements of a module that one of the two lacks say nothing of their signs.
    opposite = torch.stack([one.opposite for one in seen]) * both
    gross = sum(one.gross for one in seen)
    return Diagnosis(
        adapters=tuple(operand.label for operand in prepared.operands),
        norms=tuple(norms.tolist()),
        weights=prepared.choice.weights,
        modules=tuple(len(adapter.modules) for adapter in prepared.adapters),
        cosine=(inner / scale).tolist(),
        inputs=(torch.stack([one.inputs for one in seen]).sum(dim=0) / count).tolist(),
        outputs=(torch.stack([one.outputs for one in seen]).sum(dim=0) / count).tolist(),
        chance=_mean_chance(seen),
        conflict=(opposite.sum(dim=0) / count / SAMPLED_ELEMENTS).tolist(),
        cancelled=1 - sum(one.kept for one in seen) / gross if gross else 0.0,
        sampled=SAMPLED_ELEMENTS * len(seen),
        ranks={share: max(_rank_for(one.values, share) for one in seen) for share in _SHARES},
        tail=_tail(seen, prepared),
    )


def _mean_chance(seen: Sequence[_Module]) -> tuple[float, float]:
    chances = torch.tensor([one.chance for one in seen], dtype=torch.float64).mean(dim=0)
    return chances[0].item(), chances[1].item()


def _rank_for(values: torch.Tensor, share: float) -> int:
    energy = values.square().cumsum(dim=0)
    return int((energy < share * energy[-1]).sum()) + 1


def _tail(seen: Sequence[_Module], prepared: PreparedMerge) -> dict[int, float]:
    """The relative error of the weighted sum by rank: 1, 2, 4, ... up to where it is exact."""
    highest = max(len(one.values) for one in seen)
    ranks = [2**power for power in range(highest.bit_length())]
    ranks = sorted({*ranks, min(prepared.shapes.rank, highest), highest})
    total = sum(one.values.square().sum().item() for one in seen)
    lost = {rank: sum(one.values[rank:].square().sum().item() for one in seen) for rank in ranks}
    return {rank: (one / total) ** 0.5 if total else 0.0 for rank, one in lost.items()}
