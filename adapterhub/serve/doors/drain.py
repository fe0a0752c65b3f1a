"""The end of a server: what is inside is answered, nothing more comes in."""

from __future__ import annotations

import asyncio
import math
import time
from http import HTTPStatus

from adapterhub.serve.errors import RequestError


class Drain:
    """Counts the requests inside, on one event loop. `seconds`: when who was turned away may come
    again, for a server that is started anew or another one in its place."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._inside = 0
        self._empty = asyncio.Event()

    @property
    def refusal(self) -> RequestError | None:
        """What a request gets that comes now; None while requests are taken."""
        if self._until is None:
            return None
        left = max(1, math.ceil(self._until - time.monotonic()))
        return RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "this server is being stopped and takes no more requests",
            None,
            {"retry-after": str(left), "connection": "close"},
            "draining",
        )

    def enter(self) -> None:
        """A request comes in, and will `leave`. Raises RequestError 503."""
        refusal = self.refusal
        if refusal is not None:
            raise refusal
        self._inside += 1

    def leave(self) -> None:
        """It was answered, or nobody waits for it any more."""
        self._inside -= 1
        if self._until is not None and not self._inside:
            self._empty.set()

    async def run(self) -> None:
        """Take no more requests; returns when nothing is inside."""
        if self._until is None:
            self._until = time.monotonic() + self._seconds
        if self._inside:
            await self._empty.wait()
