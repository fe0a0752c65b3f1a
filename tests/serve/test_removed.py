"""A version that is removed while it is served leaves each engine's memory."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Any

import pytest

pytest.importorskip("vllm")

from adapterhub.cli.output import TerminalProgress
from adapterhub.generate import Sampling
from adapterhub.plugins import open_registry
from adapterhub.protocols import ServeSettings
from adapterhub_transformers import worker
from adapterhub_transformers.engine import load_service
from adapterhub_transformers.job import Job
from adapterhub_vllm import adapters as module

from .stand_in_vllm import Server, run


def test_a_removed_version_leaves_memory_and_its_lease_ends(
    tiny_base: Any, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.01)
    commit_adapter("sql")
    commit_adapter("french", seed=1)
    registry = open_registry()

    async def work(server: Server) -> None:
        with server.adapters.request():
            entry = await server.adapters.request_for("sql")
            assert entry is not None
            await server.ask("french")
            registry.remove("sql")
            await asyncio.sleep(0.2)
            # A request uses it.
            assert server.engine.removed == []
            assert (await server.refused("sql")).status is HTTPStatus.NOT_FOUND
        await asyncio.sleep(0.2)
        assert server.engine.removed == [entry.lora_int_id]
        assert [v.reference for v in server.adapters.residents.versions()] == ["french@1"]
        assert list(server.adapters._hold._versions) == [registry.resolve("french").digest]

    run(work)


def test_a_look_that_fails_is_logged_and_not_the_last(
    tiny_base: Any,
    commit_adapter: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.01)
    # vLLM keeps its log to itself.
    monkeypatch.setattr(module, "_LOG", logging.getLogger("test.removed"))
    commit_adapter("sql")
    look, failures = module.removed_digests, [OSError("the disk is gone")] * 2

    def failing(*arguments: Any) -> list[str]:
        if failures:
            raise failures.pop()
        return look(*arguments)

    monkeypatch.setattr(module, "removed_digests", failing)

    async def work(server: Server) -> None:
        entry = await server.ask("sql")
        open_registry().remove("sql")
        await asyncio.sleep(0.3)
        assert server.engine.removed == [entry.lora_int_id]

    run(work)
    assert caplog.text.count("looking for removed versions failed") == 2
    assert "the disk is gone" in caplog.text


def test_the_embedded_engine_frees_it_too(
    tiny_base: Any, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.02)
    versions = [commit_adapter("sql", seed=1), commit_adapter("odd", "ia3", seed=2)]
    service = load_service(ServeSettings("tiny"), TerminalProgress())
    adapters = service.worker.adapters
    look, failures = adapters.let_go_of_removed, [OSError("the disk is gone")]

    def failing(in_use: Any) -> None:
        if failures:
            raise failures.pop()
        look(in_use)

    monkeypatch.setattr(adapters, "let_go_of_removed", failing)
    try:
        for version in versions:
            job = Job(version, [1, 2], Sampling(2))
            service.worker.submit(job)
            job.done.result(60)
        assert list(adapters._resident) == [version.digest for version in versions]
        open_registry().remove("odd")
        wait_until(lambda: list(adapters._resident) == [versions[0].digest])
        assert service.metrics.residency.tiers() == {"sql@1": "slot", "odd@1": "disk"}
        columns = adapters._resident[versions[0].digest].columns
        open_registry().remove("sql")
        wait_until(lambda: not adapters._resident)
        # Its columns are free for the next one.
        job = Job(commit_adapter("sql", seed=3), [1, 2], Sampling(2))
        service.worker.submit(job)
        job.done.result(60)
        (loaded,) = adapters._resident.values()
        assert loaded.columns.begin == columns.begin
    finally:
        service.worker.stop()


def wait_until(true: Any) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it never came")
