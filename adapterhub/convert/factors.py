"""The best factors of an update, and what they lose: Eckart-Young, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Up to this side the spectrum comes from the Gram matrix; above it from a random sketch.
EXACT_SIDE = 3072
# Singular values below this share of the largest are below what float32 tells apart.
_ROUNDING = 1e-7
_OVERSAMPLING = 16
_POWER_STEPS = 3


@dataclass(frozen=True, slots=True)
class Rank:
    """At most `most`; of these as few as keep `energy` of the squared norm."""

    most: int
    energy: float | None = None


@dataclass(frozen=True, slots=True)
class ModuleFactors:
    """One module of the result: update = b @ a.

    a: (k, n), b: (m, k), float32. error and norm are Frobenius: of what was lost, rounding to
    float32 included, and of the update itself.
    """

    a: torch.Tensor
    b: torch.Tensor
    error: float
    norm: float


def factors_of_update(update: torch.Tensor, rank: Rank) -> ModuleFactors:
    """The best factors of a dense update, (m, n) float64.

    Exact up to a smaller side of `EXACT_SIDE`, and for `energy`; above it subspace iteration
    on a random sketch (Halko et al., 2011), whose error is measured like any other.
    """
    m, n = update.shape
    wide = m < n
    tall = update.T if wide else update
    exact = min(m, n) <= EXACT_SIDE or rank.energy is not None
    basis = (_gram_basis(tall) if exact else _sketched_basis(tall, rank.most))[:, : rank.most]
    outer = tall @ basis
    # The norms tell small singular values better than the roots of the Gram matrix do.
    values = outer.norm(dim=0)
    kept = _kept(values, rank, float(update.norm()) ** 2)
    root = values[:kept].sqrt()
    outer, inner = outer[:, :kept] / root, basis[:, :kept].T * root[:, None]
    b, a = (inner.T, outer.T) if wide else (outer, inner)
    return _measured(update, a.float().contiguous(), b.float().contiguous())


def factors_of_product(a: torch.Tensor, b: torch.Tensor, rank: Rank) -> ModuleFactors:
    """The best factors of the update b @ a, float64, without forming it; unchanged where they
    are of that rank already."""
    if rank.energy is None and a.shape[0] <= rank.most:
        short_a, short_b = a.float(), b.float()
    else:
        q_b, r_b = torch.linalg.qr(b)
        q_a, r_a = torch.linalg.qr(a.T)
        u, s, v = torch.linalg.svd(r_b @ r_a.T)
        kept = _kept(s, rank, float(s.square().sum()))
        root = s[:kept].sqrt()
        short_b = (q_b @ (u[:, :kept] * root)).float()
        short_a = (root[:, None] * (v[:kept] @ q_a.T)).float()
    lost_a, lost_b = torch.cat([a, short_a.double()]), torch.cat([b, -short_b.double()], dim=1)
    return ModuleFactors(
        short_a.contiguous(),
        short_b.contiguous(),
        product_norm(lost_a, lost_b),
        product_norm(a, b),
    )


def product_norm(a: torch.Tensor, b: torch.Tensor) -> float:
    """The Frobenius norm of b @ a, without forming it."""
    return float(torch.linalg.matrix_norm(_triangle(b) @ _triangle(a.T).T))


def _triangle(matrix: torch.Tensor) -> torch.Tensor:
    # Only the triangle is wanted; it has the matrix's own norm and products.
    triangle: torch.Tensor = torch.linalg.qr(matrix, mode="r").R
    return triangle


def _measured(update: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> ModuleFactors:
    lost = torch.addmm(update, b.double(), a.double(), alpha=-1)
    return ModuleFactors(a, b, float(lost.norm()), float(update.norm()))


def _gram_basis(tall: torch.Tensor) -> torch.Tensor:
    """Right singular vectors as columns, of the largest singular value first."""
    vectors: torch.Tensor = torch.linalg.eigh(tall.T @ tall)[1]
    return vectors.flip(1)


def _sketched_basis(tall: torch.Tensor, rank: int) -> torch.Tensor:
    width = min(rank + _OVERSAMPLING, tall.shape[1])
    generator = torch.Generator().manual_seed(0)
    sketch = torch.randn(tall.shape[1], width, dtype=tall.dtype, generator=generator)
    for _ in range(_POWER_STEPS):
        sketch, _ = torch.linalg.qr(tall.T @ (tall @ sketch))
    vectors: torch.Tensor = torch.linalg.svd(tall @ sketch, full_matrices=False)[2]
    return sketch @ vectors.T


def _kept(values: torch.Tensor, rank: Rank, total: float) -> int:
    """How many of the singular values, largest first, are kept. total: of all their squares."""
    meant = int((values > _ROUNDING * values[:1]).sum())
    if rank.energy is not None:
        reached = values.square().cumsum(0) >= rank.energy * total * (1 - 1e-12)
        meant = min(meant, int(reached.int().argmax()) + 1 if reached.any() else meant)
    return min(meant, rank.most)
