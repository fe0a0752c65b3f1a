"""Versions to entries of the engine: loaded once, checked before, never exchanged."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

pytest.importorskip("vllm")

from adapterhub.plugins import open_registry
from adapterhub.protocols import ServeSettings
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.errors import RequestError
from adapterhub_vllm import adapters as module
from adapterhub_vllm.adapters import Adapters
from adapterhub_vllm.settings import ServerSettings

T = TypeVar("T")


class Engine:
    """Stands in for AsyncLLM: takes a while to load, and fails for the ids that it is told."""

    def __init__(self) -> None:
        self.added: list[Any] = []
        self.failing: set[str] = set()

    async def add_lora(self, request: Any) -> bool:
        self.added.append(request)
        await asyncio.sleep(0.05)
        if request.lora_name in self.failing:
            raise RuntimeError("Call to add_lora method failed:\nValueError: no such module")
        return True


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def adapters(tiny_base: Any) -> Adapters:
    return Adapters(ServerSettings("tiny", 16, door_settings(ServeSettings("tiny"), 4)))


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    return asyncio.run(main())


def test_the_base_needs_no_entry(adapters: Adapters, engine: Engine) -> None:
    assert run(lambda: adapters.request_for("tiny", engine)) is None
    assert engine.added == []


def test_requests_at_once_load_a_version_once(
    adapters: Adapters, engine: Engine, commit_adapter: Any
) -> None:
    version = commit_adapter("sql")

    async def ask() -> list[Any]:
        models = ("sql", "sql@1", f"sql@{version.digest}") * 4
        return await asyncio.gather(*(adapters.request_for(model, engine) for model in models))

    entries = run(ask)
    assert len(engine.added) == 1
    assert {id(entry) for entry in entries} == {id(engine.added[0])}
    assert entries[0].lora_name == "sql@1"
    assert entries[0].lora_path == str(open_registry().path(version))
    assert entries[0].load_inplace is False
    assert [lease.version for lease in open_registry().leases()] == ["sql@1"]


def test_each_digest_has_a_name_an_id_and_a_directory_of_its_own(
    adapters: Adapters, engine: Engine, commit_adapter: Any
) -> None:
    commit_adapter("sql")

    async def ask() -> list[Any]:
        found = [await adapters.request_for("sql", engine)]
        commit_adapter("sql", seed=1)
        commit_adapter("french", seed=2)
        return found + [await adapters.request_for(name, engine) for name in ("sql", "french")]

    entries = run(ask)
    assert [entry.lora_name for entry in entries] == ["sql@1", "sql@2", "french@1"]
    assert len({entry.lora_int_id for entry in entries}) == 3
    assert len({entry.lora_path for entry in entries}) == 3
    # vLLM warms up with ids from 1, and its newer runner keeps ids in 32 bits.
    assert all(1000 < entry.lora_int_id < 2**31 for entry in entries)


def test_a_name_that_is_taken_by_another_digest_is_not_shared(
    adapters: Adapters, engine: Engine, commit_adapter: Any, home: Path
) -> None:
    first = commit_adapter("sql")

    async def ask() -> tuple[Any, Any]:
        before = await adapters.request_for("sql", engine)
        open_registry().remove("sql")
        second = commit_adapter("sql", seed=1)
        assert second.digest != first.digest
        # As if numbers had begun anew, in a home that was wiped.
        adapters._by_name["sql@2"] = before
        return before, await adapters.request_for("sql", engine)

    before, after = run(ask)
    assert after.lora_name != before.lora_name
    assert after.lora_name.startswith("sql@sha256:")


def test_a_failure_belongs_to_its_version_and_is_not_tried_at_each_request(
    adapters: Adapters, engine: Engine, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_adapter("broken")
    commit_adapter("fine", seed=1)
    engine.failing.add("broken@1")

    async def ask(model: str) -> Any:
        return await adapters.request_for(model, engine)

    for _ in range(3):
        with pytest.raises(RequestError, match="no such module") as raised:
            run(lambda: ask("broken"))
        assert raised.value.status is HTTPStatus.UNPROCESSABLE_ENTITY
    assert [entry.lora_name for entry in engine.added] == ["broken@1"]
    assert run(lambda: ask("fine")).lora_name == "fine@1"
    # What was wrong may have been the disk, so it is tried again after a while.
    engine.failing.clear()
    later = time.monotonic() + 60
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    assert run(lambda: ask("broken")).lora_name == "broken@1"


def test_remembered_failures_are_bounded(
    adapters: Adapters, engine: Engine, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FAILURES_KEPT", 2)
    for seed, name in enumerate(("a", "b", "c")):
        commit_adapter(name, seed=seed)
        engine.failing.add(f"{name}@1")
        with pytest.raises(RequestError):
            run(lambda name=name: adapters.request_for(name, engine))
    assert len(adapters._failures) == 2


def test_names_that_do_not_exist_leave_nothing_behind(adapters: Adapters, engine: Engine) -> None:
    for number in range(50):
        with pytest.raises(RequestError):
            run(lambda number=number: adapters.request_for(f"made-up-{number}", engine))
    kept = (adapters._loaded, adapters._by_name, adapters._loading, adapters._failures)
    assert [len(table) for table in kept] == [0, 0, 0, 0]


def test_files_that_are_gone_are_made_again(
    adapters: Adapters, engine: Engine, commit_adapter: Any
) -> None:
    commit_adapter("sql")

    async def ask() -> tuple[Any, Any]:
        before = await adapters.request_for("sql", engine)
        folder = Path(before.lora_path)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        shutil.rmtree(folder)
        return before, await adapters.request_for("sql", engine)

    before, after = run(ask)
    assert after is before
    assert (Path(after.lora_path) / "adapter_model.safetensors").is_file()


def test_a_client_that_goes_away_does_not_stop_the_load(
    adapters: Adapters, engine: Engine, commit_adapter: Any
) -> None:
    commit_adapter("sql")

    async def ask() -> Any:
        hasty = asyncio.create_task(adapters.request_for("sql", engine))
        while not engine.added:
            await asyncio.sleep(0.005)
        patient = asyncio.create_task(adapters.request_for("sql", engine))
        hasty.cancel()
        return await patient

    assert run(ask).lora_name == "sql@1"
    assert len(engine.added) == 1
