"""The SVD of factors on top of each other, from the R x R matrix of their products.

X = [s_1 X_1; ...; s_n X_n] is (R, d) with R far below d, and X X^T = U S^2 U^T. Products of float32
numbers are exact in float64, so the square costs digits that float32 does not have. The right
vectors U^T X / S are made only where a result needs them: nothing of (R, d) is orthogonalised.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Singular values below this share of the largest are rounding of the float32 inputs.
RESOLUTION = 2.0**-22
# Columns converted to float64 at once, and columns of X X^T computed at once.
_CHUNK = 2048
_STRIP = 64


class Stack:
    """blocks: n of (r_i, d), float32; scales: n. The k singular triples above the rounding.

    coordinates: n of (r_i, k), float64: block i is coordinates[i] V with the orthonormal rows
    V (k, d) that `lift` stands for. The sign of each row of V is pinned.
    """

    def __init__(self, blocks: Sequence[torch.Tensor], scales: Sequence[float]) -> None:
        self._blocks = blocks
        self._ranks = [block.shape[0] for block in blocks]
        self._scales = torch.tensor(
            [scale for scale, r in zip(scales, self._ranks, strict=True) for _ in range(r)],
            dtype=torch.float64,
        )
        squares = products(blocks)
        values, vectors = roots(self._scales[:, None] * squares * self._scales)
        self.coordinates = torch.split(vectors * values, self._ranks)
        self._inverse = self._scales[:, None] * vectors * reciprocal(values)

    def lift(self, mix: torch.Tensor) -> torch.Tensor:
        """mix @ V, (j, d) float32, of a float64 mix (j, k)."""
        parts = torch.split((mix @ self._inverse.T).float(), self._ranks, dim=1)
        lifted = parts[0] @ self._blocks[0]
        for part, block in zip(parts[1:], self._blocks[1:], strict=True):
            lifted.addmm_(part, block)
        return lifted


def roots(products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The k singular values, falling, and left vectors (R, k) of X, given X X^T (R, R) in float64.

    Those that are rounding are left out, but one always stays.
    """
    squares, vectors = torch.linalg.eigh(products)
    values = squares.clamp(min=0).sqrt().flip(0)
    kept = max(1, int((values > RESOLUTION * values[0]).sum()))
    vectors = vectors.flip(1)[:, :kept]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return values[:kept], vectors * largest.sign()


def reciprocal(values: torch.Tensor) -> torch.Tensor:
    """1 / values, and 0 for 0."""
    return torch.where(values > 0, 1 / values, 0.0)


def products(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """X X^T in float64 of X = [X_1; ...], of which half is computed."""
    rows = sum(block.shape[0] for block in blocks)
    total = torch.zeros(rows, rows, dtype=torch.float64)
    for start in range(0, blocks[0].shape[1], _CHUNK):
        chunk = torch.cat([block[:, start : start + _CHUNK] for block in blocks]).double()
        for row in range(0, rows, _STRIP):
            part = chunk[row : row + _STRIP]
            total[row:, row : row + _STRIP].addmm_(chunk[row:], part.T)
    return total if rows <= _STRIP else total.tril() + total.tril(-1).T
