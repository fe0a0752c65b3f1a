"""A merge space: whole weight updates, and a full SVD of the result."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapterhub.protocols import Factors, MergedModule, MergeRule


def full_svd(
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
    """operands: n modules of one shape (m, n), some of them of rank 0. The result is the nearest
    of at most `rank`. The rule is called once, with one block that holds every row."""
    deltas = torch.stack([o.scale * o.b @ o.a for o in operands])
    merged = rule(deltas, weights, _Whole(deltas, seed, module), options)
    u, s, v = torch.linalg.svd(merged, full_matrices=False)
    root = s[:rank].sqrt()
    return MergedModule(
        a=(root[:, None] * v[:rank]).contiguous(),
        b=(u[:, :rank] * root).contiguous(),
        error=s[rank:].norm().item(),
        norm=s.norm().item(),
    )


class _Whole:
    """The `protocols.Coordinates` that the rule may ask."""

    def __init__(self, deltas: torch.Tensor, seed: int, module: str) -> None:
        self._deltas = deltas
        self._seed = seed
        self.module = module
        self.elements = deltas[0].numel()

    def threshold(self, density: float) -> torch.Tensor:
        return self.kth_largest(max(1, int(density * self.elements)))

    def kth_largest(self, count: int) -> torch.Tensor:
        magnitudes = self._deltas.abs().flatten(1)
        return magnitudes.kthvalue(self.elements - count + 1, dim=1).values

    def uniform(self, adapter: int) -> torch.Tensor:
        # Keyed by what the numbers are for, never by the global random state: threads share it.
        key = f"{self._seed} {self.module} {adapter}".encode()
        generator = torch.Generator().manual_seed(zlib.crc32(key))
        return torch.rand(self._deltas[0].shape, generator=generator)
