"""Which rows of a step belong to which adapter: found once a step, used in each of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

FEW_ROWS = 128
"""Rows of one adapter up to which our own kernel is quicker than PyTorch's products."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Few:
    """The rows of all adapters that have few. `order`: (rows,) int64, by slot; `spans`:
    (adapters, 3) int64, the slot, and where its rows begin and end in `order`."""

    slots: Sequence[int]
    spans: np.ndarray[Any, np.dtype[np.int64]]
    order: np.ndarray[Any, np.dtype[np.int64]]
    _scratch: dict[int, torch.Tensor] = field(default_factory=dict)

    def scratch(self, width: int) -> torch.Tensor:
        """(width, rows) float32, for all layers of that width in turn."""
        if width not in self._scratch:
            self._scratch[width] = torch.empty(width, len(self.order))
        return self._scratch[width]


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows with an adapter: by adapter, and again as those with many and those with few."""

    groups: Sequence[Group]
    many: Sequence[Group]
    few: Few | None


NO_ROWS = Rows((), (), None)


def find_rows(slots: torch.Tensor) -> Rows:
    """`slots`: (tokens,) int64, -1 for the base, whose rows are in no group."""
    groups: list[Group] = []
    many: list[Group] = []
    spans: list[tuple[int, int, int]] = []
    order: list[int] = []
    for slot in sorted(set(slots.tolist())):
        if slot < 0:
            continue
        rows = (slots == slot).nonzero().flatten()
        groups.append(Group(slot, _simplest(rows, slots.numel())))
        large, rest = _divide(groups[-1], rows)
        many += large
        if rest.numel():
            spans.append((slot, len(order), len(order) + rest.numel()))
            order += rest.tolist()
    return Rows(groups, many, _few(spans, order) if spans else None)


def _divide(group: Group, rows: torch.Tensor) -> tuple[list[Group], torch.Tensor]:
    """The rows of one adapter: those for PyTorch, and the few that are left for our kernel.

    The prompts of one adapter stand between those of others; each is a slice, which PyTorch
    changes in place, where an index would have it copy the rows to and fro.
    """
    if rows.numel() <= FEW_ROWS:
        return [], rows
    if not isinstance(group.rows, torch.Tensor):
        return [group], rows[:0]
    ends = (rows.diff() != 1).nonzero().flatten() + 1
    runs = rows.tensor_split(ends)
    short = [run for run in runs if run.numel() <= FEW_ROWS]
    rest = torch.cat(short) if short else rows[:0]
    large = [Group(group.slot, _simplest(run, -1)) for run in runs if run.numel() > FEW_ROWS]
    if rest.numel() > FEW_ROWS:
        return [*large, Group(group.slot, rest)], rows[:0]
    return large, rest


def _few(spans: list[tuple[int, int, int]], order: list[int]) -> Few:
    slots = [slot for slot, _, _ in spans]
    return Few(slots, np.array(spans, dtype=np.int64), np.array(order, dtype=np.int64))


def _simplest(rows: torch.Tensor, count: int) -> slice | torch.Tensor | None:
    """`count`: of all rows of the step."""
    if rows.numel() == count:
        return None
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == rows.numel() else rows
