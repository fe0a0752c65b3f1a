"""Which adapters the engine has in memory: decided here, never by vLLM in the middle of a step.

vLLM reads an adapter again from its path when a request needs one that it let go of. It does so
inside the engine's step, where a failure ends the engine. Here it never has to: before one more
is loaded than there is room for, the one that nobody has used for longest is removed, and a
request holds its adapter from before the engine hears of it until the engine is done with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from adapterhub.manifest import Version
from adapterhub.serve.metrics import Residency

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient
    from vllm.lora.request import LoRARequest

    from adapterhub_vllm.soft_prompts import SoftPrompt

    Entry: TypeAlias = LoRARequest | SoftPrompt

# vLLM warms up with adapters numbered from 1, and keeps numbers in 32 bits.
_FIRST_ID = 1 << 16

Load = Callable[["EngineClient", Version, int, str], Awaitable["Entry"]]
"""Checks a version and loads it under a number and a name; raises RequestError, and has then
left nothing in the engine."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Resident:
    """One adapter in the engine, or on its way there. `users` are requests; `retired` is set
    when its version was removed from the registry."""

    version: Version
    id: int
    name: str
    loading: asyncio.Task[Entry]
    users: int = 0
    retired: bool = False


_HELD: ContextVar[list[Resident] | None] = ContextVar("adapterhub_held", default=None)


class Residents:
    """At most `room` adapters. Used from one event loop."""

    def __init__(self, engine: EngineClient, room: int, load: Load, residency: Residency) -> None:
        self._engine = engine
        self._room = room
        self._load = load
        self._residency = residency
        self._ids = count(_FIRST_ID)
        # By digest, the one that was asked for longest ago first.
        self._residents: OrderedDict[str, Resident] = OrderedDict()
        # Who needs a place waits in this order, so that no adapter waits for ever.
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._removing: set[asyncio.Task[None]] = set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """For the length of the block, what is taken in it is held."""
        held: list[Resident] = []
        token = _HELD.set(held)
        try:
            yield
        finally:
            _HELD.reset(token)
            for resident in held:
                self._release(resident)

    async def take(self, version: Version) -> Entry:
        """The version's entry, in the engine until the request ends; waits for room.

        Raises what loading raises.
        """
        held = _HELD.get()
        if held is None:
            raise RuntimeError("an adapter is asked for outside of a request")
        async with self._turn:
            resident = self._residents.get(version.digest)
            if resident is None:
                await self._make_room()
                resident = self._begin(version)
            resident.retired = False
            resident.users += 1
            held.append(resident)
            self._residents.move_to_end(version.digest)
        # A client that goes away must not cancel the load that others wait for.
        return await asyncio.shield(resident.loading)

    def find(self, name: str) -> Entry | None:
        """The loaded entry of that name."""
        for resident in self._residents.values():
            if resident.name == name and _is_loaded(resident):
                return resident.loading.result()
        return None

    async def hold(self, number: int, answers: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The engine's `answers`, through which the adapter with that number is held: also where
        the engine goes on when the client's connection has ended."""
        resident = next((r for r in self._residents.values() if r.id == number), None)
        if resident is None:
            await answers.aclose()
            raise RuntimeError("the adapter is not in the engine any more; ask again")
        resident.users += 1
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        finally:
            self._release(resident)

    def versions(self) -> list[Version]:
        """What is in the engine, the one that was asked for longest ago first."""
        return [resident.version for resident in self._residents.values()]

    def retire(self, digest: str) -> None:
        """The version was removed: it leaves as soon as no request uses it."""
        resident = self._residents.get(digest)
        if resident is not None:
            resident.retired = True
            self._leave_if_over(resident)

    def _begin(self, version: Version) -> Resident:
        # vLLM tells the adapters of a batch apart by name, so no two digests may share one.
        taken = any(r.name == version.reference for r in self._residents.values())
        name = f"{version.name}@{version.digest}" if taken else version.reference
        number = next(self._ids)
        loading = asyncio.ensure_future(self._load(self._engine, version, number, name))
        resident = Resident(version, number, name, loading)
        self._residents[version.digest] = resident
        begun = time.monotonic()
        loading.add_done_callback(
            lambda task: self._loaded(resident, task, time.monotonic() - begun)
        )
        return resident

    def _loaded(self, resident: Resident, task: asyncio.Task[Any], seconds: float) -> None:
        if task.cancelled() or task.exception() is not None:
            self._residents.pop(resident.version.digest, None)
        else:
            self._residency.loaded(resident.version.reference, seconds, "cpu")
        self._freed.set()

    async def _make_room(self) -> None:
        while len(self._residents) >= self._room:
            idle = next((r for r in self._residents.values() if _is_idle(r)), None)
            if idle is None:
                self._freed.clear()
                await self._freed.wait()
            else:
                await self._remove(idle)

    async def _remove(self, resident: Resident) -> None:
        del self._residents[resident.version.digest]
        self._residency.evicted(resident.version.reference)
        # An engine that is gone has nothing in memory.
        with suppress(Exception):
            await self._engine.remove_lora(resident.id)

    def _release(self, resident: Resident) -> None:
        resident.users -= 1
        if resident.users == 0:
            self._freed.set()
            self._leave_if_over(resident)

    def _leave_if_over(self, resident: Resident) -> None:
        here = self._residents.get(resident.version.digest) is resident
        if resident.retired and here and _is_idle(resident):
            task = asyncio.ensure_future(self._remove(resident))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)


def _is_loaded(resident: Resident) -> bool:
    task = resident.loading
    return task.done() and not task.cancelled() and task.exception() is None


def _is_idle(resident: Resident) -> bool:
    return resident.users == 0 and resident.loading.done()
