"""Which engine answers for an adapter where there are several."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from adapterhub.manifest import sha256_of
from adapterhub.protocols import ServeSettings
from adapterhub_vllm import affinity
from adapterhub_vllm.affinity import rank_of
from adapterhub_vllm.launch import command_line

DIGESTS = [sha256_of(str(number).encode()).removeprefix("sha256:") for number in range(2000)]


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_adapters_are_spread_evenly(ranks: int) -> None:
    counts = Counter(rank_of(digest, ranks) for digest in DIGESTS)
    assert sorted(counts) == list(range(ranks))
    assert max(counts.values()) < 1.25 * len(DIGESTS) / ranks


def test_one_engine_more_moves_few() -> None:
    before = [rank_of(digest, 4) for digest in DIGESTS]
    after = [rank_of(digest, 5) for digest in DIGESTS]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {4}
    assert len(moved) < 1.25 * len(DIGESTS) / 5


class FakeClient:
    """The engines of a vLLM, each by its name; notes what it is told."""

    core_engines = ["first", "second"]

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, str]] = []

    async def _call_utility_async(self, method: str, *args: Any, engine: str) -> bool:
        self.calls.append((method, args[0], engine))
        return True


@pytest.mark.anyio
async def test_an_adapter_is_loaded_into_its_own_engine_and_asked_there() -> None:
    client = FakeClient()
    asked: list[Any] = []

    async def original(self: Any, request_id: str, prompt: Any, *given: Any, **named: Any) -> None:
        asked.append(named["data_parallel_rank"])

    add_lora, add_request = affinity._add_lora(2), affinity._add_request(original, 2)
    llm = SimpleNamespace(engine_core=client)
    entries = [SimpleNamespace(lora_path=f"/somewhere/{digest}") for digest in DIGESTS[:20]]
    for entry in entries:
        assert await add_lora(llm, entry)
        await add_request(llm, "1", "x", None, lora_request=entry, data_parallel_rank=9)
    ranks = [rank_of(digest, 2) for digest in DIGESTS[:20]]
    assert set(ranks) == {0, 1} == set(asked)
    assert asked == ranks
    assert client.calls == [
        ("add_lora", entry, client.core_engines[rank])
        for entry, rank in zip(entries, ranks, strict=True)
    ]


@pytest.mark.anyio
async def test_a_client_cannot_name_an_engine() -> None:
    asked: list[Any] = []

    async def original(*given: Any, **named: Any) -> None:
        asked.append(named["data_parallel_rank"])

    await affinity._add_request(original, 2)(None, "1", "x", None, data_parallel_rank=9)
    assert asked == [None]


def test_vllm_is_told_of_its_engines(tiny_base: Any) -> None:
    several = command_line(ServeSettings("tiny", data_parallel=2), tiny_base, 8, on_cpu=True)
    place = several.index("--data-parallel-size")
    assert several[place + 1] == "2"
    one = command_line(ServeSettings("tiny"), tiny_base, 8, on_cpu=True)
    assert "--data-parallel-size" not in one


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
