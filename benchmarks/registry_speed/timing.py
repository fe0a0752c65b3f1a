"""Times of an operation, and how they are printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def seconds(operation: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def times(operations: Sequence[Callable[[], Any]], warm: int = 0) -> list[float]:
    """Wall seconds of each call, after `warm` calls that do not count."""
    for operation in operations[:warm]:
        operation()
    return [seconds(operation) for operation in operations]


def median(found: Sequence[float]) -> float:
    """The median in milliseconds."""
    return 1000 * statistics.median(found)


def p99(found: Sequence[float]) -> float:
    """The 99th percentile in milliseconds; of fewer than 100 times the largest."""
    return 1000 * sorted(found)[min(len(found) - 1, int(0.99 * len(found)))]
