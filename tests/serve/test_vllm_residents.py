"""What is in the engine's memory: never more than there is room for, never less than in use."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from adapterhub.manifest import Version
from adapterhub.serve.metrics import Residency
from adapterhub_vllm.residents import Residents

ROOM = 3
T = TypeVar("T")


class Engine:
    """Stands in for vLLM: an answer for an adapter that is not in memory ends it, and so does
    one adapter too many, which would make it choose one to let go of."""

    def __init__(self) -> None:
        self.memory: set[int] = set()
        self.loads = 0
        self.alive = True

    async def add_lora(self, entry: Any) -> None:
        await asyncio.sleep(0.001)
        self.memory.add(entry.lora_int_id)
        self.alive &= len(self.memory) <= ROOM
        self.loads += 1

    async def remove_lora(self, number: int) -> None:
        await asyncio.sleep(0)
        self.memory.discard(number)

    async def answer(self, number: int, steps: int) -> AsyncIterator[int]:
        for step in range(steps):
            self.alive &= number in self.memory
            yield step
            await asyncio.sleep(0)


def version(number: int) -> Version:
    return Version("sql", number, f"sha256:{number:064x}", cast("Any", None))


async def load(engine: Any, asked: Version, number: int, name: str) -> Any:
    if asked.number == 13:
        raise ValueError("broken")
    entry = SimpleNamespace(lora_int_id=number, lora_name=name)
    await engine.add_lora(entry)
    return entry


def run(work: Callable[[Engine, Residents], Awaitable[T]]) -> T:
    async def main() -> T:
        engine = Engine()
        return await work(engine, Residents(cast("Any", engine), ROOM, load, Residency()))

    return asyncio.run(main())


def numbers(residents: Residents) -> list[int]:
    return [one.number for one in residents.versions()]


async def ask(engine: Engine, residents: Residents, number: int, steps: int = 5) -> str:
    with residents.request():
        entry: Any = await residents.take(version(number))
        async for _ in residents.hold(entry.lora_int_id, engine.answer(entry.lora_int_id, steps)):
            pass
        return str(entry.lora_name)


def test_more_adapters_than_there_is_room_for_never_meet_in_the_engine() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        chance = random.Random(0)
        asked = [chance.choice([1, 1, 1, *range(2, 20)]) for _ in range(400)]
        found = await asyncio.gather(
            *(ask(engine, residents, n, n % 7) for n in asked), return_exceptions=True
        )
        for number, name in zip(asked, found, strict=True):
            if number == 13:
                assert isinstance(name, ValueError)
            else:
                assert name == f"sql@{number}"
        assert engine.alive
        assert engine.loads > ROOM
        assert len(engine.memory) == len(residents.versions()) <= ROOM

    run(work)


def test_the_one_asked_for_longest_ago_goes_first() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        for number in (1, 2, 3, 1, 4):
            await ask(engine, residents, number)
        assert numbers(residents) == [3, 1, 4]
        assert engine.loads == 4

    run(work)


def test_who_needs_a_place_waits_until_one_is_free_and_is_not_overtaken() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        busy = [residents.request() for _ in range(ROOM)]
        for number, block in enumerate(busy, start=1):
            block.__enter__()
            await residents.take(version(number))
        order: list[int] = []

        async def wait(number: int) -> None:
            await ask(engine, residents, number)
            order.append(number)

        # The second wants what is loaded, and goes in after the first all the same.
        waiting = [asyncio.ensure_future(wait(number)) for number in (4, 1)]
        await asyncio.sleep(0.01)
        assert order == []
        assert numbers(residents) == [1, 2, 3]
        busy[1].__exit__(None, None, None)
        await asyncio.gather(*waiting)
        assert sorted(order) == [1, 4]
        assert sorted(numbers(residents)) == [1, 3, 4]
        assert engine.alive

    run(work)


def test_a_client_that_stops_waiting_leaves_no_trace() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        with residents.request():
            for number in (1, 2, 3):
                await residents.take(version(number))
            gone = asyncio.ensure_future(ask(engine, residents, 4))
            await asyncio.sleep(0.01)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        assert await ask(engine, residents, 5) == "sql@5"
        assert all(resident.users == 0 for resident in residents._residents.values())

    run(work)


def test_an_answer_that_goes_on_keeps_its_adapter() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        with residents.request():
            entry: Any = await residents.take(version(1))
            answers = residents.hold(entry.lora_int_id, engine.answer(entry.lora_int_id, 50))
            await anext(answers)
        # Its client is gone, the engine is not done.
        for number in (2, 3, 4, 5):
            await ask(engine, residents, number)
        assert 1 in numbers(residents)
        await answers.aclose()
        for number in (2, 3, 4):
            await ask(engine, residents, number)
        assert 1 not in numbers(residents)
        assert engine.alive

    run(work)


def test_an_adapter_that_left_is_never_handed_to_the_engine() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        with residents.request():
            entry: Any = await residents.take(version(1))
        for number in (2, 3, 4):
            await ask(engine, residents, number)
        late = residents.hold(entry.lora_int_id, engine.answer(entry.lora_int_id, 5))
        with pytest.raises(RuntimeError, match="ask again"):
            await anext(late)
        assert engine.alive

    run(work)


def test_what_was_removed_leaves_when_its_last_answer_ended() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        await ask(engine, residents, 1)
        residents.retire(version(1).digest)
        await asyncio.sleep(0.01)
        assert (numbers(residents), engine.memory) == ([], set())
        with residents.request():
            await residents.take(version(2))
            residents.retire(version(2).digest)
            await asyncio.sleep(0.01)
            assert numbers(residents) == [2]
        await asyncio.sleep(0.01)
        assert (numbers(residents), engine.memory) == ([], set())
        # It came back before it was gone.
        with residents.request():
            await residents.take(version(3))
            residents.retire(version(3).digest)
            await residents.take(version(3))
        await asyncio.sleep(0.01)
        assert numbers(residents) == [3]

    run(work)


def test_a_failed_load_takes_no_room_and_is_told_to_all_who_wait() -> None:
    async def work(engine: Engine, residents: Residents) -> None:
        failed = await asyncio.gather(
            *(ask(engine, residents, 13) for _ in range(5)), return_exceptions=True
        )
        assert [str(error) for error in failed] == ["broken"] * 5
        assert numbers(residents) == []

    run(work)
