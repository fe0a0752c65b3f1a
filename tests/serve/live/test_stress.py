"""TEST_STRESS_SECONDS of everything at once: commits, moves, removals, damage, clients that are
killed. Every answer is checked, and so is the memory of the server's processes."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from live_server import Server
from telltale import Teller
from traffic import Answer, Client

from adapterhub.plugins import open_registry

SECONDS = float(os.environ.get("TEST_STRESS_SECONDS", "20"))
WORKERS = 6
MEGABYTE = 2**20
# What may come and go between two looks; a leak of one adapter a second would be 100 kB/s.
SLACK = 24 * MEGABYTE

pytestmark = [
    pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900 + 2 * SECONDS),
]  # fmt: skip


class Storm:
    """What is asked for, what happens meanwhile, and how it was answered."""

    def __init__(self, server: Server, teller: Teller) -> None:
        self.server, self.teller = server, teller
        self.registry: Any = open_registry()
        self.chance = random.Random(7)
        self.told: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self.memory: list[tuple[float, int]] = []
        self.fresh: list[str] = []
        self.answered: set[str] = set()
        self.doomed: list[str] = []
        self.broken: list[str] = []
        self.ends = time.monotonic() + SECONDS
        for name in ("steady", "steady", "flying", "flying"):
            teller.commit(name)
        self.registry.tag("flying@1", "prod")

    # What happens to the registry

    def commit(self) -> None:
        self.fresh.append(self.teller.commit("fresh").reference)
        del self.fresh[:-12]

    def flip(self) -> None:
        number = self.chance.choice((1, 2))
        if self.chance.random() < 0.2:
            self.registry.split("flying", "prod", {1: 50, 2: 50})
        else:
            self.registry.tag(f"flying@{number}", "prod")

    def remove(self) -> None:
        self.doomed.append(self.teller.commit("doomed").reference)
        if len(self.doomed) > 3:
            self.registry.remove(self.doomed[-3])
        del self.doomed[:-5]

    def damage(self) -> None:
        version = self.teller.commit_alone("broken")
        weights = version.manifest.files["adapter_model.safetensors"]
        blob = self.registry.blobs.path(weights.sha256)
        whole = blob.read_bytes()
        blob.chmod(0o644)
        blob.write_bytes(whole[:-1])
        self.broken.append(version.reference)
        del self.broken[:-3]

    def vandalise(self) -> None:
        # What passed the gates, for which they read the directory.
        known = [reference for reference in self.fresh if reference in self.answered]
        for reference in self.chance.sample(known, min(3, len(known))):
            digest = self.registry.resolve(reference).digest.removeprefix("sha256:")
            shutil.rmtree(self.registry.views.directory / digest, ignore_errors=True)

    # What clients do

    async def ask(self, client: Client) -> None:
        kind = self.chance.choice(("base", "steady", "flying", "fresh", "fresh", "doomed",
                                   "broken", "unknown", "malformed"))  # fmt: skip
        models = {
            "base": ["smollm2"],
            "steady": ["steady@1", "steady@2"],
            "flying": ["flying@prod"],
            "fresh": self.fresh,
            "doomed": self.doomed,
            "broken": self.broken,
            "unknown": [f"nobody-{self.chance.randrange(10**6)}"],
            "malformed": ["../steady", "", 7, None, "steady@0", "x" * 300],
        }[kind]
        if not models:
            return
        fields = {"user": str(self.chance.randrange(50))} if kind == "flying" else {}
        answer = await client.complete(self.chance.choice(models), max_tokens=2, **fields)
        self.told[f"{kind} {answer.status}"] += 1
        if answer.status == 200:
            self.answered.add(answer.version)
        if not self._is_right(kind, answer):
            self.wrong.append((kind, answer))

    def _is_right(self, kind: str, answer: Answer) -> bool:
        if answer.status == 200 and kind == "base":
            return answer.version == "smollm2"
        if answer.status == 200 and kind in ("steady", "flying", "fresh", "doomed"):
            allowed = ("flying@1", "flying@2") if kind == "flying" else (answer.model,)
            return (
                answer.version in allowed and answer.text == self.teller.words[answer.version] * 2
            )
        refused = {"doomed": 404, "broken": 422, "unknown": 404, "malformed": 400}
        return answer.status == refused.get(kind)

    async def vanish(self, client: Client) -> None:
        """A client that is killed in the middle of its answer."""
        begun = asyncio.Event()
        model = self.chance.choice(["steady@1", "flying@prod", *self.fresh])
        streaming = asyncio.ensure_future(client.stream(model, 200, lambda _: begun.set()))
        await asyncio.wait({streaming, asyncio.ensure_future(begun.wait())},
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        begun.set()
        streaming.cancel()
        self.told["killed clients"] += 1

    # The course of it

    async def run(self) -> None:
        async with Client(self.server.url) as client:
            await asyncio.gather(
                *(self._each(0.0, lambda: self.ask(client)) for _ in range(WORKERS)),
                self._each(0.4, lambda: self.vanish(client)),
                self._each(0.5, lambda: asyncio.to_thread(self.commit)),
                self._each(0.15, lambda: asyncio.to_thread(self.flip)),
                self._each(1.0, lambda: asyncio.to_thread(self.remove)),
                self._each(3.0, lambda: asyncio.to_thread(self.damage)),
                self._each(0.7, lambda: asyncio.to_thread(self.vandalise)),
                self._each(0.5, self._look),
            )

    async def _each(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self.ends:
            await work()
            await asyncio.sleep(seconds)

    async def _look(self) -> None:
        self.memory.append((time.monotonic(), await asyncio.to_thread(self.server.memory)))


def test_everything_at_once(server: Server, teller: Teller) -> None:
    storm = Storm(server, teller)
    asyncio.run(storm.run())
    sizes = [size / MEGABYTE for _, size in storm.memory]
    print(f"{SECONDS:g} s: {dict(sorted(storm.told.items()))}")
    print("memory in MB:", [round(size) for size in sizes[:: max(1, len(sizes) // 20)]])
    assert storm.wrong == []
    assert not any(key.endswith((" 500", " 502", " 503")) for key in storm.told)
    for kind in ("base 200", "steady 200", "flying 200", "fresh 200", "doomed 200", "broken 422",
                 "unknown 404", "malformed 400", "killed clients"):  # fmt: skip
        assert storm.told[kind] > 0
    # The first half fills caches; from then on it stays.
    half, end = len(sizes) // 2, max(1, len(sizes) // 8)
    assert max(sizes[-end:]) - max(sizes[half : half + end]) < SLACK / MEGABYTE
    assert server.request("//health")[0] == 200
