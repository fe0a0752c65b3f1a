"""Choosing weights and density on rows that no table shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from quality.merges import Merge
from quality.scores import Points

FACTOR = 2**0.5
DENSITIES = (0.2, 0.5, 0.8)
STEP = 2.0

Found = tuple[float, Merge]
Objective = Callable[[Merge], float | None]
"""How good a merge is on the rows to choose on; None where it is refused."""


def shares(points: Points, single: Points) -> dict[str, float]:
    """The mean score of each task over that of the task's own adapter, which must not be 0."""
    return {task: fmean(points[task]) / fmean(single[task]) for task in points}


def goodness(points: Points, single: Points) -> float:
    """The mean of the mean share and the worst: a merge that forgets one task is no good."""
    found = shares(points, single).values()
    return (fmean(found) + min(found)) / 2


def search(start: Merge, objective: Objective) -> Found | None:
    """The best scale, then the best density; None where the merge is refused."""
    best = _best([start], objective)
    if best is None:
        return None
    for factor in (FACTOR, 1 / FACTOR):
        climbed = _climb(best, factor, objective)
        if climbed is not best:
            best = climbed
            break
    if start.density is not None:
        best = _best([replace(best[1], density=d) for d in DENSITIES], objective, best) or best
    return best


def _climb(best: Found, factor: float, objective: Objective) -> Found:
    """Multiply the scale for as long as that helps."""
    while True:
        further = replace(best[1], scale=round(best[1].scale * factor, 3))
        value = objective(further)
        if value is None or value <= best[0]:
            return best
        best = (value, further)


def refine(start: Merge, objective: Objective, rounds: int) -> Found | None:
    """Change one adapter's weight at a time, for as long as that helps."""
    best = _best([start], objective)
    for _ in range(rounds):
        before = best
        for adapter in range(len(start.weights)):
            if best is None:
                return None
            best = _best(_changed(best[1], adapter), objective, best)
        if best == before:
            break
    return best


def _changed(merge: Merge, adapter: int) -> list[Merge]:
    found = []
    for factor in (STEP, 1 / STEP):
        weights = list(merge.weights)
        weights[adapter] = round(weights[adapter] * factor, 4)
        found.append(replace(merge, weights=tuple(weights)))
    return found


def _best(merges: Sequence[Merge], objective: Objective, best: Found | None = None) -> Found | None:
    for merge in merges:
        value = objective(merge)
        if value is not None and (best is None or value > best[0]):
            best = (value, merge)
    return best
