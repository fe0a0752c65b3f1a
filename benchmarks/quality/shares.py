"""Shares of the single adapters' scores, with intervals over rows and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quality.scores import Points

DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Kept:
    """What a merge keeps: by task, on average over the tasks, and of the worst task."""

    tasks: dict[str, float]
    mean: Estimate
    worst: Estimate
    seeds: int


def kept(runs: Sequence[tuple[Points, Points]]) -> Kept:
    """The shares of one merge. `runs` has a pair for each seed: its points, and those of the
    tasks' own adapters on the same rows.

    A task's share is the mean over the seeds of score / the single adapter's score. The interval
    is a percentile bootstrap (Efron 1979): seeds are drawn again, and so are the rows of each
    task, the same ones for the merge and the single adapter.
    """
    names = list(runs[0][0])
    table = [_ratios(runs, task, np.random.default_rng(place)) for place, task in enumerate(names)]
    chosen = np.random.default_rng(len(names)).integers(len(runs), size=(DRAWS, len(runs)))
    observed = np.array([values.mean() for values, _ in table])
    # (tasks, draws): the mean over the drawn seeds.
    drawn = np.array([np.take_along_axis(again, chosen, axis=1).mean(axis=1) for _, again in table])
    return Kept(
        tasks={task: float(share) for task, share in zip(names, observed, strict=True)},
        mean=_estimate(float(observed.mean()), drawn.mean(axis=0)),
        worst=_estimate(float(observed.min()), drawn.min(axis=0)),
        seeds=len(runs),
    )


def _ratios(
    runs: Sequence[tuple[Points, Points]], task: str, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(seeds,) shares as observed, and (draws, seeds) over drawn rows."""
    merged, single = (np.array([run[side][task] for run in runs]) for side in (0, 1))
    rows = random.integers(merged.shape[1], size=(DRAWS, merged.shape[1]))
    again = [x[:, rows].mean(axis=2).T for x in (merged, single)]
    # A draw in which the single adapter has no point says nothing.
    below = np.where(again[1] > 0, again[1], np.nan)
    return merged.mean(axis=1) / single.mean(axis=1), again[0] / below


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
