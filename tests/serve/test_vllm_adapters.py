"""Versions to entries of the engine: loaded once, checked before, never exchanged."""

from __future__ import annotations

import asyncio
import shutil
import time
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("vllm")

from adapterhub.plugins import open_registry
from adapterhub_vllm import adapters as module

from .stand_in_vllm import Server, run


def test_the_base_needs_no_entry(tiny_base: Any) -> None:
    async def work(server: Server) -> None:
        assert await server.ask("tiny") is None
        assert server.loaded == []

    run(work)


def test_requests_at_once_load_a_version_once(tiny_base: Any, commit_adapter: Any) -> None:
    version = commit_adapter("sql")

    async def work(server: Server) -> None:
        models = ("sql", "sql@1", f"sql@{version.digest}") * 4
        entries = await asyncio.gather(*(server.ask(model) for model in models))
        assert server.loaded == ["sql@1"]
        assert {id(entry) for entry in entries} == {id(server.engine.added[0])}
        assert entries[0].load_inplace is False

    run(work)
    assert [lease.version for lease in open_registry().leases()] == ["sql@1"]


def test_each_digest_has_a_name_an_id_and_a_path_of_its_own(
    tiny_base: Any, commit_adapter: Any
) -> None:
    digests = [commit_adapter("sql").digest]

    async def work(server: Server) -> list[Any]:
        found = [await server.ask("sql")]
        digests.append(commit_adapter("sql", seed=1).digest)
        digests.append(commit_adapter("french", seed=2).digest)
        return found + [await server.ask(name) for name in ("sql", "french")]

    entries = run(work)
    assert [entry.lora_name for entry in entries] == ["sql@1", "sql@2", "french@1"]
    assert len({entry.lora_int_id for entry in entries}) == 3
    assert [f"sha256:{Path(entry.lora_path).name}" for entry in entries] == digests
    # vLLM warms up with ids from 1, and its newer runner keeps ids in 32 bits.
    assert all(1000 < entry.lora_int_id < 2**31 for entry in entries)


def test_a_name_that_is_taken_by_another_digest_is_not_shared(
    tiny_base: Any, commit_adapter: Any, home: Path
) -> None:
    commit_adapter("sql")

    async def work(server: Server) -> Any:
        await server.ask("sql")
        commit_adapter("sql", seed=1)
        # As if numbers had begun anew, in a home that was wiped.
        for resident in server.adapters.residents._residents.values():
            resident.name = "sql@2"
        return await server.ask("sql")

    assert run(work).lora_name.startswith("sql@sha256:")


def test_what_the_engine_read_is_out_of_reach_afterwards(
    tiny_base: Any, commit_adapter: Any
) -> None:
    """Files that change or vanish while they are served change nothing."""
    version = commit_adapter("sql")

    async def work(server: Server) -> None:
        entry = await server.ask("sql")
        assert not Path(entry.lora_path).exists()
        view = open_registry().path(version)
        for path in (view, *view.iterdir()):
            path.chmod(0o755)
        (view / "adapter_model.safetensors").write_bytes(b"no tensors")
        assert await server.ask("sql") is entry
        shutil.rmtree(view)
        assert await server.ask("sql") is entry
        assert server.loaded == ["sql@1"]

    run(work)


def test_a_stored_file_that_was_damaged_is_never_loaded(
    tiny_base: Any, commit_adapter: Any
) -> None:
    commit_adapter("fine")
    version = commit_adapter("sql", seed=1)

    async def work(server: Server) -> None:
        await server.ask("fine")
        record = version.manifest.files["adapter_model.safetensors"]
        blob = cast("Any", open_registry()).blobs.path(record.sha256)
        content = blob.read_bytes()
        blob.chmod(0o644)
        for damaged in (content[:-4], content[:-4] + b"\0\0\0\1", b""):
            blob.write_bytes(damaged)
            server.adapters._failures.clear()
            error = await server.refused("sql")
            assert error.status is HTTPStatus.UNPROCESSABLE_ENTITY
            assert "damaged" in error.message
            assert "adz fsck" in error.message
        assert server.loaded == ["fine@1"]
        assert (await server.ask("fine")).lora_name == "fine@1"
        folders = list(server.adapters._copies._made.values())
        assert len(folders) == 1
        assert list(folders[0].iterdir()) == []

    run(work)


def test_a_failure_belongs_to_its_version_and_is_not_tried_at_each_request(
    tiny_base: Any, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_adapter("broken")
    commit_adapter("fine", seed=1)

    async def work(server: Server) -> None:
        server.engine.failing.add("broken@1")
        for _ in range(3):
            error = await server.refused("broken")
            assert error.status is HTTPStatus.UNPROCESSABLE_ENTITY
            assert "no such module" in error.message
        assert server.loaded == ["broken@1"]
        # Half of it may be in the engine, which would count it.
        assert server.engine.removed == [server.engine.added[0].lora_int_id]
        assert (await server.ask("fine")).lora_name == "fine@1"
        # What was wrong may have been the disk, so it is tried again after a while.
        server.engine.failing.clear()
        later = time.monotonic() + 60
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
        assert (await server.ask("broken")).lora_name == "broken@1"

    run(work)


def test_remembered_failures_are_bounded(
    tiny_base: Any, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FAILURES_KEPT", 2)
    names = ("a", "b", "c")
    for seed, name in enumerate(names):
        commit_adapter(name, seed=seed)

    async def work(server: Server) -> None:
        for name in names:
            server.engine.failing.add(f"{name}@1")
            await server.refused(name)
        assert len(server.adapters._failures) == 2

    run(work)


def test_names_that_do_not_exist_leave_nothing_behind(tiny_base: Any) -> None:
    async def work(server: Server) -> None:
        for number in range(50):
            await server.refused(f"made-up-{number}")
        assert server.adapters._failures == {}
        assert server.adapters.residents.versions() == []

    run(work)


def test_more_versions_than_there_is_room_for_are_answered(
    tiny_base: Any, commit_adapter: Any
) -> None:
    for seed in range(4):
        commit_adapter("sql", seed=seed)

    async def work(server: Server) -> None:
        names = [f"sql@{number}" for number in (1, 2, 3, 4, 1, 2, 3, 4)]
        found = await asyncio.gather(*(server.ask(name) for name in names))
        assert [entry.lora_name for entry in found] == names
        assert len(server.adapters.residents.versions()) == 2
        ids = {entry.lora_int_id for entry in server.engine.added}
        assert len(ids - set(server.engine.removed)) == 2

    run(work, room=2)


def test_a_client_that_goes_away_does_not_stop_the_load(
    tiny_base: Any, commit_adapter: Any
) -> None:
    commit_adapter("sql")

    async def work(server: Server) -> None:
        hasty = asyncio.create_task(server.ask("sql"))
        while not server.engine.added:
            await asyncio.sleep(0.005)
        patient = asyncio.create_task(server.ask("sql"))
        hasty.cancel()
        assert (await patient).lora_name == "sql@1"
        assert server.loaded == ["sql@1"]

    run(work)
