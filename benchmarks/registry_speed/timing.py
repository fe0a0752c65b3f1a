"""Times of an operation, and what is told of them. Needs nothing but Python: MLflow's side runs
in an environment of its own."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def seconds(operation: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def after_sync(operation: Callable[[], Any]) -> float:
    """Wall seconds of one call that does not wait for what was written before it."""
    os.sync()
    return seconds(operation)


def median(found: Sequence[float]) -> float:
    """The median in milliseconds."""
    return 1000 * statistics.median(found)


def p99(found: Sequence[float]) -> float:
    """The 99th percentile in milliseconds; of fewer than 100 times the largest."""
    return 1000 * sorted(found)[min(len(found) - 1, int(0.99 * len(found)))]
