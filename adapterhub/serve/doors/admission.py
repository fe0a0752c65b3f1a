"""Who goes in next: a queue for each adapter, and the adapters take turns.

However long one adapter's queue is, another adapter's first request is at most one turn of each
adapter away from the engine.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from http import HTTPStatus

from adapterhub.serve.errors import RequestError

# How fast the average time of an answer follows the latest ones.
_SMOOTHING = 0.1
_LONGEST_RETRY_SECONDS = 60


@dataclass(slots=True, eq=False)
class Place:
    """A request in a queue, then in the engine: `granted` is set when it goes in."""

    adapter: str
    key: str
    weight: int
    granted: asyncio.Future[None]
    since: float = field(default=0.0)


class Admission:
    """Used from one event loop. `at_once` is the weight that the engine holds at most,
    `adapter_at_once` what one adapter may have of it, `waiting` the length of a queue."""

    def __init__(self, at_once: int, adapter_at_once: int | None, waiting: int) -> None:
        self._at_once = at_once
        self._adapter_at_once = adapter_at_once
        self._longest = waiting
        self._free = at_once
        self._running: Counter[str] = Counter()
        self._of_key: Counter[str] = Counter()
        self._queues: dict[str, deque[Place]] = {}
        # The adapters that have a queue, in the order of their turns.
        self._turns: deque[str] = deque()
        self._answer_seconds = 1.0

    def ask(self, adapter: str, key: str, sequences: int, key_at_once: int | None) -> Place:
        """A place for a request of `sequences` answers; it goes in at once where there is room.

        Whoever asks must `leave`. Raises RequestError 429 when the queue is full or the key has
        `key_at_once` requests already.
        """
        if key_at_once is not None and self._of_key[key] >= key_at_once:
            raise self._refusal(f"this key has {key_at_once} requests at once already", "key_busy")
        weight = min(sequences, self._at_once)
        place = Place(adapter, key, weight, asyncio.get_running_loop().create_future())
        if adapter not in self._queues:
            self._queues[adapter] = deque()
            self._turns.append(adapter)
        queue = self._queues[adapter]
        queue.append(place)
        self._of_key[key] += 1
        self._admit()
        if not place.granted.done() and len(queue) > self._longest:
            self.leave(place)
            what = f"{len(queue)} requests wait for {adapter or 'this model'} already"
            raise self._refusal(what, "queue_full")
        return place

    def leave(self, place: Place) -> None:
        """The request was answered, or nobody waits for it any more."""
        self._of_key[place.key] -= 1
        if not self._of_key[place.key]:
            del self._of_key[place.key]
        if place.granted.done():
            taken = time.monotonic() - place.since
            self._answer_seconds += _SMOOTHING * (taken - self._answer_seconds)
            self._free += place.weight
            self._running[place.adapter] -= place.weight
            if not self._running[place.adapter]:
                del self._running[place.adapter]
        else:
            place.granted.cancel()
            self._queues[place.adapter].remove(place)
            if not self._queues[place.adapter]:
                del self._queues[place.adapter]
                self._turns.remove(place.adapter)
        self._admit()

    def _admit(self) -> None:
        passed = 0
        while passed < len(self._turns):
            adapter = self._turns[0]
            place = self._queues[adapter][0]
            if self._has_its_share(adapter, place.weight):
                self._turns.rotate(-1)
                passed += 1
                continue
            # Nobody overtakes a large request, or it would wait for ever.
            if place.weight > self._free:
                return
            self._grant(place)
            passed = 0

    def _grant(self, place: Place) -> None:
        self._free -= place.weight
        self._running[place.adapter] += place.weight
        place.since = time.monotonic()
        place.granted.set_result(None)
        self._turns.popleft()
        queue = self._queues[place.adapter]
        queue.popleft()
        if queue:
            self._turns.append(place.adapter)
        else:
            del self._queues[place.adapter]

    def _has_its_share(self, adapter: str, weight: int) -> bool:
        running = self._running.get(adapter, 0)
        return (
            self._adapter_at_once is not None
            and running > 0
            and running + weight > self._adapter_at_once
        )

    def _refusal(self, message: str, reason: str) -> RequestError:
        ahead = sum(len(queue) for queue in self._queues.values()) + 1
        seconds = math.ceil(self._answer_seconds * ahead / self._at_once)
        return too_many(message, min(_LONGEST_RETRY_SECONDS, seconds), reason)


def too_many(message: str, seconds: float, reason: str) -> RequestError:
    """429, with the whole seconds after which another try makes sense."""
    retry = {"retry-after": str(max(1, math.ceil(seconds)))}
    return RequestError(HTTPStatus.TOO_MANY_REQUESTS, message, None, retry, reason)
