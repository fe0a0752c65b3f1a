"""Notices a server that lives and does not answer any more."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

from adapterhub.serve.lifecycle.ask import status_of

# An engine that died says 503 too, and ends by itself soon.
_PATIENCE_SECONDS = 10.0


class Watchdog:
    """Looks at `/health`, which is 503 where the engine's steps do not end.

    url: of the server. seconds: how long it may give no answer at all; 0 for ever.
    """

    def __init__(self, url: str, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._url = f"{url}/health"
        self._seconds = seconds
        self._clock = clock
        self._well = self._ill = clock()

    def look(self) -> str | None:
        """How it hangs; None while it does not."""
        if not self._seconds:
            return None
        status = status_of(self._url)
        now = self._clock()
        if status is None:
            silent = now - self._well > self._seconds
            return f"it gave no answer for {self._seconds:g} s" if silent else None
        self._well = now
        if status != HTTPStatus.SERVICE_UNAVAILABLE:
            self._ill = now
            return None
        if now - self._ill <= _PATIENCE_SECONDS:
            return None
        return f"requests wait, and no step of the engine ended for {self._seconds:g} s"
