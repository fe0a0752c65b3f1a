"""Whether an engine still works: its steps end while requests wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pulse:
    """Used from one event loop. seconds: how long requests may wait without one step that ends;
    0 for ever."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._waiting = 0
        self._since = 0.0
        # Waited for in vain by those that gave up: a client's own time limit is no step.
        self._in_vain = 0.0

    def enter(self) -> None:
        """One more waits for the engine, and will `leave`."""
        if not self._waiting:
            self._since = self._clock()
        self._waiting += 1

    def leave(self) -> None:
        """It got what it waited for, or gave up."""
        self._waiting -= 1
        if not self._waiting:
            self._in_vain += self._clock() - self._since

    def beat(self) -> None:
        """The engine finished a step."""
        self._in_vain = 0.0
        self._since = self._clock()

    @property
    def stalled(self) -> bool:
        """Whether nothing came out of the engine for too long."""
        if not self.seconds:
            return False
        waited = self._clock() - self._since if self._waiting else 0.0
        return self._in_vain + waited > self.seconds
