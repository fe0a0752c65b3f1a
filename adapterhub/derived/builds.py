"""Building beside a server: one child process at a time, a short queue, and who waits for what."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

from adapterhub.derived.builder import Builder
from adapterhub.derived.wanted import Wanted
from adapterhub.protocols import Derivations
from adapterhub.serve.doors.admission import too_many
from adapterhub.serve.errors import RequestError

MOST_WAITING = 8
"""Different builds that run or wait at once; one more is told to come again."""
MOST_REQUESTS = 16
"""Requests that wait for builds: each has a place in the engine."""
_RETRY_SECONDS = 10
# How long a refused build is refused without another try.
_REFUSED_SECONDS = 60.0
_REFUSALS_KEPT = 1024
# Python, torch and the factors of one module; the base comes on top.
_CHILD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Refusal:
    message: str
    until: float


class Builds:
    """Used from one event loop."""

    def __init__(self, settings: Derivations) -> None:
        self._settings = settings
        self._builder = Builder()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._waiting = 0
        self._running: dict[str, asyncio.Task[None]] = {}
        self._refused: OrderedDict[str, _Refusal] = OrderedDict()

    async def make(self, wanted: Wanted, base_bytes: int, used: Sequence[str]) -> None:
        """Wait until the version is there. base_bytes: what is loaded beside the adapters.

        Raises RequestError: 422 where it cannot be made, 429 with a full queue, 503 where it
        takes longer than a request waits, or memory is short now; both say when to come again.
        """
        refusal = self._refused.get(wanted.key)
        if refusal is not None and time.monotonic() < refusal.until:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, refusal.message)
        task = self._running.get(wanted.key)
        if task is None:
            if len(self._running) >= MOST_WAITING:
                raise too_many(
                    f"{MOST_WAITING} versions are being made already", _RETRY_SECONDS, "builds"
                )
            task = asyncio.create_task(self._build(wanted, base_bytes, list(used)))
            self._running[wanted.key] = task
            task.add_done_callback(lambda done: self._forget(wanted, done))
        if self._waiting >= MOST_REQUESTS:
            raise too_many(
                f"{MOST_REQUESTS} requests wait for versions already", _RETRY_SECONDS, "builds"
            )
        self._waiting += 1
        try:
            # A client that goes away does not end the build that others wait for.
            done, _ = await asyncio.wait({task}, timeout=self._settings.wait_seconds)
        finally:
            self._waiting -= 1
        if not done:
            raise come_again(f"{wanted.text} is being made")
        task.result()

    async def _build(self, wanted: Wanted, base_bytes: int, used: list[str]) -> None:
        async with self._one_at_a_time:
            short = base_bytes + _CHILD_BYTES - (available_bytes() or base_bytes + _CHILD_BYTES)
            if short > 0:
                what = f"{short / 2**30:.1f} GiB of memory are missing to make {wanted.text}"
                raise come_again(what)
            asked = {
                "wanted": asdict(wanted),
                "settings": asdict(self._settings),
                "used": used,
            }
            # A base stays in the memory of the process that loaded it.
            answer = await self._builder.ask(asked, keep=not base_bytes)
        if "refused" in answer:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, answer["refused"])

    def _forget(self, wanted: Wanted, task: asyncio.Task[None]) -> None:
        del self._running[wanted.key]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RequestError) and error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            until = time.monotonic() + _REFUSED_SECONDS
            self._refused[wanted.key] = _Refusal(error.message, until)
            self._refused.move_to_end(wanted.key)
            while len(self._refused) > _REFUSALS_KEPT:
                self._refused.popitem(last=False)


def come_again(reason: str) -> RequestError:
    """503, with the seconds after which another try makes sense."""
    retry = {"retry-after": str(_RETRY_SECONDS)}
    return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}: come again", "model", retry)


def available_bytes() -> int | None:
    """The memory that a new process may take, None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line[:13] == "MemAvailable:"), None
    )
