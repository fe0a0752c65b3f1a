"""The SVD of factors that stand beside each other, from the R x R matrix of their products.

X = [s_1 X_1, ..., s_n X_n] is (d, R) with R far below d, and X^T X = V S^2 V^T. Products of float32
numbers are exact in float64, so the square costs digits that float32 does not have. The left
vectors X V / S are made only where a result needs them: no (d, R) matrix is orthogonalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

# Singular values below this share of the largest are rounding of the float32 inputs.
RESOLUTION = 2.0**-22
# Rows converted to float64 at once, and columns of X^T X computed at once.
_ROWS = 2048
_COLUMNS = 64


class Stack:
    """blocks: n of (d, r_i), float32; scales: n. The k singular triples above the rounding.

    coordinates: n of (k, r_i), float64: block i is U coordinates[i] with the orthonormal
    U (d, k) that `lift` stands for. The sign of each column of V is pinned.
    """

    def __init__(self, blocks: Sequence[torch.Tensor], scales: Sequence[float]) -> None:
        self._blocks = blocks
        ranks = [block.shape[1] for block in blocks]
        self._scales = torch.tensor(scales, dtype=torch.float64).repeat_interleave(
            torch.tensor(ranks)
        )
        products = self._scales[:, None] * _products(self._chunks(), sum(ranks)) * self._scales
        values, vectors = roots(products)
        self.coordinates = list(torch.split(values[:, None] * vectors.T, ranks, dim=1))
        self._inverse = vectors * reciprocal(values)

    def lift(self, mix: torch.Tensor) -> torch.Tensor:
        """U @ mix, (d, j) float32, of a float64 mix (k, j)."""
        mix = self._scales[:, None] * (self._inverse @ mix)
        return torch.cat([(chunk @ mix).float() for chunk in self._chunks()])

    def _chunks(self) -> Iterator[torch.Tensor]:
        for start in range(0, self._blocks[0].shape[0], _ROWS):
            rows = slice(start, start + _ROWS)
            yield torch.cat([block[rows] for block in self._blocks], dim=1).double()


def roots(products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The k singular values, falling, and vectors (R, k) of X, given X^T X (R, R) in float64.

    Those that are rounding are left out, but one always stays.
    """
    squares, vectors = torch.linalg.eigh(products)
    values = squares.clamp(min=0).sqrt().flip(0)
    kept = max(1, int((values > RESOLUTION * values[0]).sum()))
    vectors = vectors.flip(1)[:, :kept]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return values[:kept], vectors * torch.copysign(torch.ones_like(largest), largest)


def reciprocal(values: torch.Tensor) -> torch.Tensor:
    """1 / values, and 0 for 0."""
    return torch.where(values > 0, 1 / values, 0.0)


def _products(chunks: Iterator[torch.Tensor], columns: int) -> torch.Tensor:
    """X^T X of X in chunks of rows; only the lower triangle, which is what `eigh` reads."""
    total = torch.zeros(columns, columns, dtype=torch.float64)
    for chunk in chunks:
        for start in range(0, columns, _COLUMNS):
            part = chunk[:, start : start + _COLUMNS]
            total[start:, start : start + _COLUMNS] += chunk[:, start:].T @ part
    return total
