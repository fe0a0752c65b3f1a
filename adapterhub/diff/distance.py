"""How far the updates of two adapters lie apart, from their factors and in float64.

Both updates of a module are written in one orthonormal basis, of at most r1 + r2 rows and
columns. Norms, distance and cosine are exact there, and no update is ever built.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from adapterhub.diff.factors import AdapterTensors, Array


@dataclass(frozen=True, slots=True)
class Distance:
    """Of one module's update, of one tensor, or over all of them. norms: Frobenius, of the first
    and the second adapter, 0 where it has none. absolute: Frobenius, of the difference. ranks:
    None for what is no product of factors."""

    name: str
    norms: tuple[float, float]
    absolute: float
    inner: float
    ranks: tuple[int, int] | None = None

    @property
    def relative(self) -> float:
        """The distance over the larger norm: 0 where they are equal, 2 where opposite."""
        larger = max(self.norms)
        return self.absolute / larger if larger else 0.0

    @property
    def cosine(self) -> float | None:
        """1 where they point the same way, 0 where they have nothing in common; None where one
        of them is zero."""
        product = self.norms[0] * self.norms[1]
        return max(-1.0, min(1.0, self.inner / product)) if product else None


def distances(one: AdapterTensors, two: AdapterTensors) -> Iterator[Distance]:
    """Every module's and every other tensor's, by name. Tensors of different shapes have
    nothing in common."""
    for module in sorted(one.modules | two.modules):
        yield _of_module(module, one, two)
    for name in sorted(one.others | two.others):
        yield _of_tensor(name, one, two)


def total(parts: Iterable[Distance]) -> Distance:
    """Over all parts: as if all updates were one vector."""
    parts = list(parts)
    squares = [math.fsum(part.norms[i] ** 2 for part in parts) for i in (0, 1)]
    return Distance(
        "all",
        (math.sqrt(squares[0]), math.sqrt(squares[1])),
        math.sqrt(math.fsum(part.absolute**2 for part in parts)),
        math.fsum(part.inner for part in parts),
    )


def _of_module(module: str, one: AdapterTensors, two: AdapterTensors) -> Distance:
    sides = [side.update(module) if module in side.modules else None for side in (one, two)]
    ranks = tuple(0 if side is None else side[1].shape[0] for side in sides)
    present = [side for side in sides if side is not None]
    shapes = {(left.shape[0], right.shape[1]) for left, right in present}
    if len(shapes) > 1 or len(present) < 2:
        norms = [0.0 if side is None else _norm(_in_basis([side])[0]) for side in sides]
        return _apart(module, (norms[0], norms[1]), (ranks[0], ranks[1]))
    first, second = _in_basis(present)
    if all(map(np.array_equal, *present)):
        # Else rounding would show as a difference.
        second = first
    return Distance(
        module,
        (_norm(first), _norm(second)),
        _norm(first - second),
        float(np.sum(first * second)),
        (ranks[0], ranks[1]),
    )


def _in_basis(updates: list[tuple[Array, Array]]) -> list[Array]:
    """Each update's coordinates in an orthonormal basis that holds all of them."""
    left = np.linalg.qr(np.hstack([update[0] for update in updates]), mode="r")
    right = np.linalg.qr(np.hstack([update[1].T for update in updates]), mode="r")
    ends = np.cumsum([update[1].shape[0] for update in updates])[:-1]
    pairs = zip(np.split(left, ends, axis=1), np.split(right, ends, axis=1), strict=True)
    return [rows @ columns.T for rows, columns in pairs]


def _of_tensor(name: str, one: AdapterTensors, two: AdapterTensors) -> Distance:
    first, second = (side.other(name) if name in side.others else None for side in (one, two))
    if first is None or second is None or first.shape != second.shape:
        norms = [0.0 if array is None else _norm(array) for array in (first, second)]
        return _apart(name, (norms[0], norms[1]), None)
    norms = [_norm(first), _norm(second)]
    inner = float(np.vdot(first, second))
    return Distance(name, (norms[0], norms[1]), _norm(first - second), inner)


def _apart(name: str, norms: tuple[float, float], ranks: tuple[int, int] | None) -> Distance:
    return Distance(name, norms, math.hypot(*norms), 0.0, ranks)


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array))
