"""What is loaded: more versions than there is room for, damaged files, removed versions, names
that do not exist."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from typing import Any

import pytest
from live_server import ROOM, Server
from telltale import Teller
from traffic import Client

from adapterhub.plugins import open_registry

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

MEGABYTE = 2**20
NAMES = 10_000


def spoil_views(versions: list[Any], chance: random.Random) -> None:
    """What an admin's mistake can do to the directories that were handed out."""
    for version in versions:
        view = _view(version)
        if not view.is_dir():
            continue
        for path in (view, *view.iterdir()):
            path.chmod(0o755)
        weights = view / "adapter_model.safetensors"
        how = chance.choice(["vanish", "truncate", "zero"])
        if how == "vanish":
            shutil.rmtree(view)
        elif how == "truncate":
            weights.write_bytes(weights.read_bytes()[:1000])
        else:
            with weights.open("r+b") as file:
                file.seek(2000)
                # It may have been cut short before.
                file.write(bytes(max(weights.stat().st_size - 2000, 0)))


def test_more_versions_than_room_while_their_directories_are_damaged(
    server: Server, teller: Teller
) -> None:
    versions = [teller.commit("crowd") for _ in range(ROOM + 8)]
    chance = random.Random(0)
    registry = open_registry()

    async def main() -> Counter[Any]:
        told: Counter[Any] = Counter()

        async def load(client: Client, seed: int) -> None:
            chosen = random.Random(seed)
            for _ in range(12):
                answer = await client.complete(chosen.choice(versions).reference, max_tokens=2)
                if answer.status == 200:
                    assert answer.version == answer.model
                    assert answer.text == teller.words[answer.version] * 2
                told[answer.status] += 1

        async with Client(server.url) as client:
            # Each passes the gates once, and most are out of memory again afterwards.
            for version in versions:
                assert (await client.complete(version.reference)).status == 200
            loads = [asyncio.ensure_future(load(client, seed)) for seed in range(12)]
            while not all(task.done() for task in loads):
                await asyncio.to_thread(spoil_views, chance.sample(versions, 4), chance)
                await asyncio.sleep(0.1)
                for version in chance.sample(versions, 4):
                    shutil.rmtree(_view(version), ignore_errors=True)
                    registry.path(version)
            await asyncio.gather(*loads)
        return told

    assert asyncio.run(main()) == {200: 12 * 12}
    assert server.request("//health")[0] == 200


def _view(version: Any) -> Any:
    registry: Any = open_registry()
    return registry.views.directory / version.digest.removeprefix("sha256:")


def test_a_damaged_file_is_refused_and_harms_no_other(server: Server, teller: Teller) -> None:
    broken, fine = teller.commit_alone("damaged"), teller.commit_alone("undamaged")
    registry: Any = open_registry()
    blob = registry.blobs.path(broken.manifest.files["adapter_model.safetensors"].sha256)
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(content[:2000])

    async def main() -> list[Any]:
        async with Client(server.url) as client:
            asked = ["damaged", "undamaged"] * 8
            return await asyncio.gather(*(client.complete(model) for model in asked))

    for answer in asyncio.run(main()):
        if answer.model == "undamaged":
            assert answer.text == teller.words[fine.reference] * 3
        else:
            assert answer.status == 422
            assert "adz fsck" in answer.message
    blob.write_bytes(content)


def test_a_removed_version_finishes_its_answers_and_is_gone(server: Server, teller: Teller) -> None:
    version = teller.commit("going")
    registry = open_registry()
    removed = asyncio.Event()

    async def main() -> tuple[list[str], Any, Any]:
        def once(_: str) -> None:
            if not removed.is_set():
                registry.remove("going")
                removed.set()

        async with Client(server.url) as client:
            streamed = asyncio.ensure_future(client.stream("going", 60, once))
            await removed.wait()
            refused = await client.complete("going@1")
            pieces = await streamed
            # The engine lets go of it within seconds; a restored one is loaded anew.
            await asyncio.sleep(5)
            registry.restore("going")
            return pieces, refused, await client.complete("going")

    pieces, refused, again = asyncio.run(main())
    assert pieces[-1] == "[DONE]"
    assert sum(teller.words[version.reference] in piece for piece in pieces) >= 59
    assert refused.status == 404
    assert "adz restore" in refused.message
    assert again.text == teller.words[version.reference] * 3


def test_names_that_do_not_exist_are_not_kept(server: Server, teller: Teller) -> None:
    teller.commit("near")

    async def main(first: int, count: int) -> Counter[int]:
        async with Client(server.url) as client:
            told: Counter[int] = Counter()

            async def ask(worker: int) -> None:
                for number in range(first + worker, first + count, 16):
                    told[(await client.complete(f"nearly-{number}")).status] += 1

            await asyncio.gather(*(ask(worker) for worker in range(16)))
            near = await client.complete("neer")
            assert (near.status, "did you mean near" in near.message) == (404, True)
            return told

    asyncio.run(main(0, NAMES // 4))
    before = server.memory()
    assert asyncio.run(main(NAMES, NAMES)) == {404: NAMES}
    assert server.memory() - before < 8 * MEGABYTE
    # No answer is older than the registry.
    commit_and_ask = asyncio.run(_found(server, teller))
    assert commit_and_ask == 200


async def _found(server: Server, teller: Teller) -> int:
    async with Client(server.url) as client:
        assert (await client.complete("nearly")).status == 404
        teller.commit("nearly")
        return (await client.complete("nearly")).status
