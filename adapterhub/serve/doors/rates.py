"""Requests a minute, counted exactly: at most N in any 60 seconds."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

_WINDOW_SECONDS = 60.0


class Rate:
    """Counts by name. Names that were not used for a minute are forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The least recently used name is first.
        self._taken: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, name: str, per_minute: int | None) -> float:
        """Count a request of `name` and return 0, or the seconds until one would be counted."""
        return self.take_all((name,), per_minute)[1]

    def take_all(self, names: Sequence[str], per_minute: int | None) -> tuple[str, float]:
        """Count a request of every name, or of none where one of them has to wait: then its name,
        and the seconds."""
        if per_minute is None:
            return "", 0.0
        now = self._clock()
        self._forget(now)
        for name in names:
            times = self._taken.get(name, deque())
            while times and times[0] <= now - _WINDOW_SECONDS:
                times.popleft()
            if len(times) >= per_minute:
                return name, times[len(times) - per_minute] + _WINDOW_SECONDS - now
        for name in names:
            self._taken.setdefault(name, deque()).append(now)
            self._taken.move_to_end(name)
        return "", 0.0

    def _forget(self, now: float) -> None:
        while self._taken:
            name, times = next(iter(self._taken.items()))
            if times[-1] > now - _WINDOW_SECONDS:
                return
            del self._taken[name]
