"""An alias that moves under load: nothing dropped, nothing answered with the wrong weights."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from live_server import PROMPTS, TOLERANCE, Server, commit
from traffic import Answer, Client

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

FLIPS = 100
WORKERS = 4
# Longer than one block of the KV cache (128 tokens on a CPU), so that the prefix is reused.
LONG = [(f"{prompt}. " * 40)[:640] for prompt in PROMPTS[:2]]
# What is reused is what the adapters of the first layers wrote.
LIKE = {"flip@1": "few@1", "flip@2": "few@2"}


@pytest.fixture(scope="module")
def flipped(server: Server, folders: dict[str, Path]) -> tuple[list[Answer], list[Any]]:
    """The answers of a steady load, and the moments at which the alias was about to move and had
    moved, with where it went."""
    from adapterhub.plugins import open_registry

    for like in LIKE.values():
        commit("flip", folders[like])
    open_registry().tag("flip@1", "prod")
    return asyncio.run(_flip(server))


async def _flip(server: Server) -> tuple[list[Answer], list[Any]]:
    from adapterhub.plugins import open_registry

    answers: list[Answer] = []
    moves: list[tuple[float, float, str]] = []
    over = asyncio.Event()

    def move(number: int) -> None:
        begun = time.monotonic()
        open_registry().tag(f"flip@{number}", "prod")
        moves.append((begun, time.monotonic(), f"flip@{number}"))

    async def load(client: Client, worker: int) -> None:
        while not over.is_set():
            prompt = LONG[(worker + len(answers)) % len(LONG)]
            answers.append(
                await client.complete(
                    "flip@prod", prompt, max_tokens=2, logprobs=1, return_token_ids=True
                )
            )

    async with Client(server.url) as client:
        loads = [asyncio.ensure_future(load(client, worker)) for worker in range(WORKERS)]
        chance = random.Random(0)
        for flip in range(FLIPS):
            seen = len(answers) + chance.randint(1, 3)
            while len(answers) < seen:
                await asyncio.sleep(0.002)
            await asyncio.to_thread(move, 2 - flip % 2)
        over.set()
        await asyncio.gather(*loads)
    return answers, moves


def test_no_request_is_dropped(flipped: tuple[list[Answer], list[Any]]) -> None:
    answers, moves = flipped
    assert Counter(answer.status for answer in answers) == {200: len(answers)}
    assert len(moves) == FLIPS
    versions = Counter(answer.version for answer in answers)
    assert set(versions) == set(LIKE)
    assert min(versions.values()) > len(answers) / 5


def test_each_answer_is_of_a_version_that_the_alias_had_meanwhile(
    flipped: tuple[list[Answer], list[Any]],
) -> None:
    answers, moves = flipped
    for answer in answers:
        # The last move that was over when the request began, and those since.
        before = [version for _, done, version in moves if done < answer.begun][-1:]
        since = [v for begun, done, v in moves if done >= answer.begun and begun < answer.ended]
        assert answer.version in [*(before or ["flip@1"]), *since]


def test_each_answer_is_that_of_its_version_with_the_prefix_cached(
    server: Server, flipped: tuple[list[Answer], list[Any]], expected: Any
) -> None:
    """Compared with PEFT: KV of the other version in the cache would change every figure."""
    answers, _ = flipped
    known: dict[Any, list[float]] = {}
    for answer in answers:
        choice = answer.body["choices"][0]
        key = (LIKE[answer.version], *choice["prompt_token_ids"], -1, *choice["token_ids"])
        if key not in known:
            given = choice["prompt_token_ids"], choice["token_ids"]
            known[key] = expected(LIKE[answer.version], *given)
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(known[key], abs=TOLERANCE)
    _, metrics = server.request("//metrics")
    hits = [line for line in metrics.splitlines() if line.startswith("vllm:prefix_cache_hits")]
    assert float(hits[0].rpartition(" ")[2]) > 128 * len(answers) / 4
