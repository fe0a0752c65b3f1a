"""A reader of vLLM's messages sleeps until one is written, and does not rely on the notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

import zmq
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

from adapterhub_vllm import waiting


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A writer and a reader with our waiting, as in the middle of an answer."""
    monkeypatch.setattr(SpinCondition, "wait", SpinCondition.wait)
    assert waiting.install() == "waits between processes"
    context = zmq.Context()
    address = f"ipc://{tmp_path}/notices"
    writer = SpinCondition(False, context, address)
    reader = SpinCondition(True, context, address)
    reader.record_read()
    yield writer, reader
    context.destroy(linger=0)


def test_a_waiting_reader_leaves_the_core_to_others(pair: tuple[Any, Any]) -> None:
    _, reader = pair
    wall, busy = time.monotonic(), time.thread_time()
    while time.monotonic() < wall + 0.5:
        reader.wait()
    # vLLM's own takes all of the half second.
    assert time.thread_time() - busy < 0.15


def test_a_notice_wakes_it_and_one_that_is_lost_does_not_hold_it(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = pair
    begun = time.monotonic()
    reader.wait(timeout_ms=60_000)
    assert time.monotonic() - begun < 1
    # With no limit of ours, the notice alone ends the wait.
    monkeypatch.setattr(waiting, "_LONGEST_MS", 60_000)
    threading.Timer(0.1, writer.notify).start()
    reader.busy_loop_s = 60
    reader.wait(timeout_ms=60_000)
    assert 0.05 < time.monotonic() - begun < 20


def test_another_way_of_waiting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(self: Any, seconds: float) -> None: ...

    monkeypatch.setattr(SpinCondition, "wait", wait)
    assert waiting.install() is None
    assert SpinCondition.wait is wait
