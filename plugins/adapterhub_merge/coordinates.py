"""Coordinates whose elements are given by factors: D_i = L_i R_i, built block of rows by block.

A space chooses the factors: the adapters' own for the dense weight, small ones for the core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from adapterhub.protocols import MergeRule
from adapterhub_merge.threshold import kth_largest, select

# A block of one adapter fills 256 kB, so that it stays in the cache while a rule works on it.
# The number of rows follows from the shape alone: neither workers nor memory change a result.
BLOCK_ELEMENTS = 1 << 16


class FactorCoordinates:
    """n matrices of the same (rows, cols), of which a block of rows exists at a time.

    left: n matrices (rows, r_i), right: n matrices (r_i, cols), float32.
    """

    def __init__(
        self, left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], seed: int, module: str
    ) -> None:
        self._left = left
        self._right = right
        self._seed = seed
        self.module = module
        self.shape = (left[0].shape[0], right[0].shape[1])
        self.elements = self.shape[0] * self.shape[1]
        self._largest: dict[int, torch.Tensor] = {}

    def __iter__(self) -> Iterator[Block]:
        for rows in self._slices:
            yield Block(self, rows)

    def deltas(self, rows: slice) -> torch.Tensor:
        """(n, rows, cols): these rows of every adapter."""
        deltas = torch.empty(len(self._left), rows.stop - rows.start, self.shape[1])
        for delta, left, right in zip(deltas, self._left, self._right, strict=True):
            torch.mm(left[rows], right, out=delta)
        return deltas

    def threshold(self, density: float) -> torch.Tensor:
        """(n,): see `protocols.Coordinates.threshold`."""
        return self.kth_largest(max(1, int(density * self.elements)))

    def kth_largest(self, count: int) -> torch.Tensor:
        """(n,): see `protocols.Coordinates.kth_largest`; found once for the whole module."""
        if count not in self._largest:
            self._largest[count] = torch.stack(
                [self._kth_largest(adapter, count) for adapter in range(len(self._left))]
            )
        return self._largest[count]

    def uniform(self, adapter: int, rows: slice) -> torch.Tensor:
        """(rows, cols): see `protocols.Coordinates.uniform`."""
        text = f"{self._seed}\0{self.module}\0{adapter}"
        key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
        first, last = rows.start * self.shape[1], rows.stop * self.shape[1]
        # A count of Philox yields four 64-bit words, which are eight float32 numbers.
        counter, skipped = divmod(first, 8)
        generator = np.random.Generator(np.random.Philox(counter=counter, key=key))
        numbers = generator.random(last - first + skipped, dtype=np.float32)[skipped:]
        return torch.from_numpy(numbers).view(-1, self.shape[1])

    @cached_property
    def _slices(self) -> list[slice]:
        rows, cols = self.shape
        step = max(1, BLOCK_ELEMENTS // cols)
        return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

    def _kth_largest(self, adapter: int, count: int) -> torch.Tensor:
        left, right = self._left[adapter], self._right[adapter]

        def blocks() -> Iterator[torch.Tensor]:
            for rows in self._slices:
                yield (left[rows] @ right).abs_()

        if self._left[adapter].shape[1] == 0:
            return torch.zeros(())
        if self.elements <= BLOCK_ELEMENTS:
            return select((left @ right).abs_(), count)
        return kth_largest(blocks, self._sample(adapter), self.elements, count)

    def _sample(self, adapter: int) -> torch.Tensor:
        """Magnitudes at random positions, straight from the factors."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(self.shape[0], (1 << 15,), generator=generator)
        cols = torch.randint(self.shape[1], (1 << 15,), generator=generator)
        return (self._left[adapter][rows] * self._right[adapter].T[cols]).sum(dim=1).abs_()


class Block:
    """Some rows of a `FactorCoordinates`: the `protocols.Coordinates` that a rule sees."""

    def __init__(self, whole: FactorCoordinates, rows: slice) -> None:
        self._whole = whole
        self.rows = rows
        self.module = whole.module
        self.elements = whole.elements

    def deltas(self) -> torch.Tensor:
        """(n, rows, cols)."""
        return self._whole.deltas(self.rows)

    def threshold(self, density: float) -> torch.Tensor:
        """See `protocols.Coordinates.threshold`."""
        return self._whole.threshold(density)

    def kth_largest(self, count: int) -> torch.Tensor:
        """See `protocols.Coordinates.kth_largest`."""
        return self._whole.kth_largest(count)

    def uniform(self, adapter: int) -> torch.Tensor:
        """See `protocols.Coordinates.uniform`."""
        return self._whole.uniform(adapter, self.rows)


def apply_rule(
    rule: MergeRule,
    coordinates: FactorCoordinates,
    weights: torch.Tensor,
    options: Mapping[str, Any],
    *,
    whole: bool = False,
) -> torch.Tensor:
    """The rule's result: (rows, cols) float32. whole: see `merged_blocks`."""
    merged = torch.empty(coordinates.shape)
    for rows, block in merged_blocks(rule, coordinates, weights, options, whole=whole):
        merged[rows] = block
    return merged


def merged_blocks(
    rule: MergeRule,
    coordinates: FactorCoordinates,
    weights: torch.Tensor,
    options: Mapping[str, Any],
    *,
    whole: bool = False,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rule's result block by block. whole: one call, for a rule that is not elementwise,
    instead of one for each block of rows."""
    everything = Block(coordinates, slice(0, coordinates.shape[0]))
    for block in [everything] if whole else coordinates:
        yield block.rows, rule(block.deltas(), weights, block, options)
