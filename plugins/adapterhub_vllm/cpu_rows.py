"""Which rows of a step belong to which adapter: found once a step, used in each of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

# Rows of one adapter above which a product for it alone is as quick as one for all adapters.
_FEW_ROWS = 16


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one adapter: None for every row, a slice where they are neighbours, else an
    index of int64."""

    slot: int
    rows: slice | torch.Tensor | None

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """Our rows of `x`, a view where that is possible."""
        if self.rows is None:
            return x
        return x[self.rows] if isinstance(self.rows, slice) else x.index_select(0, self.rows)


@dataclass(frozen=True, slots=True)
class Batch:
    """A few rows of several adapters, placed as (slots, rows of a slot): one product for all.

    `take`: (slots * rows,) int64, the row in each place; places without one repeat a row.
    `keep`: the places whose results are wanted, None for all. `rows`: (kept,) where they go.
    """

    first: int
    slots: int
    take: torch.Tensor
    keep: torch.Tensor | None
    rows: torch.Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows with an adapter, by adapter, and together where that is quicker."""

    groups: Sequence[Group]
    batch: Batch | None


def find_rows(slots: torch.Tensor) -> Rows:
    """`slots`: (tokens,) int64, -1 for the base, whose rows are in no group."""
    # A prompt has thousands of rows of one adapter: not a Python loop over them.
    present, counts = slots.unique(return_counts=True)
    groups = []
    for slot in present.tolist():
        if slot >= 0:
            rows = (slots == slot).nonzero().flatten()
            groups.append(Group(slot, _simplest(rows, slots.numel())))
    few = bool((counts[present >= 0] <= _FEW_ROWS).all())
    return Rows(groups, _batch(slots.tolist()) if few else None)


def _simplest(rows: torch.Tensor, count: int) -> slice | torch.Tensor | None:
    if rows.numel() == count:
        return None
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == rows.numel() else rows


def _batch(slots: list[int]) -> Batch | None:
    """None where one product would read too many slots that have no rows."""
    of_slot: dict[int, list[int]] = {}
    for row, slot in enumerate(slots):
        if slot >= 0:
            of_slot.setdefault(slot, []).append(row)
    if len(of_slot) < 2:
        return None
    first = min(of_slot)
    count = max(of_slot) - first + 1
    if count > 2 * len(of_slot):
        return None
    deep = max(map(len, of_slot.values()))
    take, keep = [0] * (count * deep), []
    for slot, rows in sorted(of_slot.items()):
        place = (slot - first) * deep
        take[place : place + len(rows)] = rows
        keep += range(place, place + len(rows))
    full = len(keep) == len(take)
    return Batch(
        first,
        count,
        torch.tensor(take),
        None if full else torch.tensor(keep),
        torch.tensor([take[place] for place in keep]),
    )
