"""TIES as its authors' notebook computes it (https://github.com/prateeky2806/ties-merging,
src/ties_minimal.ipynb, BSD-3-Clause): one trim over all modules of an adapter together, one
element more than the density says, no weights, and a plain mean. Its `lamda` is `--scale`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from adapterhub_merge.coordinates import FactorCoordinates
from adapterhub_merge.threshold import kth_largest

if TYPE_CHECKING:
    from adapterhub.protocols import Coordinates, Factors

# The threshold is bracketed by a sample, and what lies inside the bracket is kept in memory: this
# many leave a two-hundredth of all elements.
_SAMPLES = 1 << 20


class GlobalTies:
    """A `protocols.SurveyingRule`. Options: density, of all modules together."""

    def survey(
        self,
        modules: Callable[[], Iterable[tuple[str, Sequence[Factors]]]],
        weights: torch.Tensor,
        options: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """`floors`: (n,), the smallest magnitude that each adapter's trim keeps; `majority`: the
        sign that most sums have, which an element gets whose own sum is 0."""

        def factors() -> Iterator[Sequence[Factors]]:
            return (operands for _, operands in modules())

        floors = _floors(factors, options["density"])
        balance = sum(
            _trim(block.deltas(), floors).sum(dim=0).sign().sum(dtype=torch.float64).item()
            for operands in factors()
            for block in _coordinates(operands)
        )
        return {"floors": floors, "majority": float((balance > 0) - (balance < 0))}

    def __call__(
        self,
        deltas: torch.Tensor,
        weights: torch.Tensor,
        coordinates: Coordinates,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        """See `protocols.MergeRule`; `weights` is all ones."""
        kept = _trim(deltas, options["floors"])
        elected = kept.sum(dim=0).sign()
        elected = torch.where(elected == 0, options["majority"], elected)
        agree = torch.where(elected > 0, kept > 0, kept < 0)
        mean: torch.Tensor = (kept * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
        return mean


def _floors(modules: Callable[[], Iterable[Sequence[Factors]]], density: float) -> torch.Tensor:
    elements = sum(operands[0].b.shape[0] * operands[0].a.shape[1] for operands in modules())
    count = int(density * elements) + 1
    adapters = len(next(iter(modules())))
    if count > elements:
        return torch.zeros(adapters)

    def blocks(adapter: int) -> Iterator[torch.Tensor]:
        for operands in modules():
            for block in _coordinates([operands[adapter]]):
                yield block.deltas()[0].abs_()

    return torch.stack(
        [
            kth_largest(partial(blocks, i), _sample(modules, i, elements), elements, count)
            for i in range(adapters)
        ]
    )


def _coordinates(operands: Sequence[Factors]) -> FactorCoordinates:
    # As the space `dense` makes them: the magnitudes at the edge must be the same bits.
    left = [operand.b * operand.scale for operand in operands]
    return FactorCoordinates(left, [operand.a for operand in operands], 0, "")


def _sample(
    modules: Callable[[], Iterable[Sequence[Factors]]], adapter: int, elements: int
) -> torch.Tensor:
    """Magnitudes at random positions of all modules."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for operands in modules():
        a, b = operands[adapter].a, operands[adapter].b * operands[adapter].scale
        count = _SAMPLES * b.shape[0] * a.shape[1] // elements + 1
        rows = torch.randint(b.shape[0], (count,), generator=generator)
        columns = torch.randint(a.shape[1], (count,), generator=generator)
        found.append((b[rows] * a.T[columns]).sum(dim=1).abs_())
    return torch.cat(found)


def _trim(deltas: torch.Tensor, floors: torch.Tensor) -> torch.Tensor:
    return torch.where(deltas.abs() >= floors[:, None, None], deltas, 0.0)


global_ties = GlobalTies()
