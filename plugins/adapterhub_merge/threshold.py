"""The exact k-th largest magnitude of a matrix that exists only block by block.

A sample brackets it, one pass over the blocks counts what lies above the bracket and collects
what lies inside, a selection among the few collected finishes. No sort of everything, and
memory for the bracket only (about a fiftieth of the elements).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

# The bracket's half-width in standard deviations of a sample quantile: it misses once in
# three million times, and then a wider one is tried.
_DEVIATIONS = 5.0


def kth_largest(
    blocks: Callable[[], Iterable[torch.Tensor]],
    sample: torch.Tensor,
    elements: int,
    count: int,
) -> torch.Tensor:
    """The `count`-th largest of `elements` magnitudes (1 is the largest), as a scalar float32.

    blocks: yields all magnitudes, the same ones at each call; sample: some of them.
    """
    ordered = sample.sort(descending=True).values
    margin = _DEVIATIONS
    while True:
        low, high = _bracket(ordered, count / elements, margin)
        above, inside = _collect(blocks(), low, high)
        rank = count - above
        if 1 <= rank <= inside.numel():
            return select(inside, rank)
        margin *= 8


def select(magnitudes: torch.Tensor, count: int) -> torch.Tensor:
    """The `count`-th largest of all `magnitudes`, as a scalar float32."""
    # numpy's selection takes a tenth of the time of torch's kthvalue.
    place = magnitudes.numel() - count
    return torch.from_numpy(np.partition(magnitudes.numpy().ravel(), place)[place : place + 1])[0]


def _bracket(ordered: torch.Tensor, share: float, margin: float) -> tuple[float, float]:
    size = ordered.numel()
    half = margin * (share * (1 - share) / size) ** 0.5 * size + margin
    first, last = int(share * size - half), int(share * size + half)
    low = ordered[last].item() if last < size else 0.0
    high = ordered[first].item() if first >= 0 else float("inf")
    return low, high


def _collect(blocks: Iterable[torch.Tensor], low: float, high: float) -> tuple[int, torch.Tensor]:
    # Comparisons in numpy, which are vectorised; those of torch that give bool are not.
    above = 0
    inside = []
    for block in blocks:
        values = block.numpy().ravel()
        over = values > high
        above += int(np.count_nonzero(over))
        inside.append(values[(values >= low) ^ over])
    return above, torch.from_numpy(np.concatenate(inside))
