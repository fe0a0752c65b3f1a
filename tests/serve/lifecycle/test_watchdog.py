"""A server that lives and does not answer is found, and its engine started again."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.protocols import ServeSettings
from adapterhub.serve.lifecycle.supervise import BackOff, Supervisor
from adapterhub.serve.lifecycle.watchdog import Watchdog


class Health:
    """What `/health` says, and where."""

    status = 200
    url = ""


@pytest.fixture
def health() -> Iterator[Health]:
    found = Health()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(found.status if self.path == "/health" else 404)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_says_that_it_stalls_hangs_if_it_goes_on(health: Health) -> None:
    now = [0.0]
    watchdog = Watchdog(health.url, 300, lambda: now[0])
    assert watchdog.look() is None
    health.status = 503
    # An engine that has just died says it too, and its end says why.
    for now[0] in (5.0, 10.0):
        assert watchdog.look() is None
    now[0] = 10.1
    assert watchdog.look() == "requests wait, and no step of the engine ended for 300 s"
    health.status = 200
    assert watchdog.look() is None


def test_what_gives_no_answer_hangs_after_as_long() -> None:
    now = [0.0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    watchdog = Watchdog(url, 300, lambda: now[0])
    now[0] = 300.0
    assert watchdog.look() is None
    now[0] = 300.1
    assert watchdog.look() == "it gave no answer for 300 s"
    assert Watchdog(url, 0, lambda: now[0]).look() is None


class Progress:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    warn = note


def test_an_engine_that_hangs_is_killed_and_started_again(
    health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vLLM here is a process that sleeps, behind a server that says so."""
    from adapterhub.serve.lifecycle import watchdog
    from adapterhub_vllm import child, engine

    monkeypatch.setattr(engine, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(engine.VllmProcess, "wait_until_ready", lambda self: None)
    health.status = 503
    settings = ServeSettings("tiny", stall_seconds=300)
    progress: Any = Progress()
    started: list[Any] = []

    def start() -> Any:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        process = child.Child(command, {}, tmp_path / "vllm.log")
        started.append(process)
        return engine.VllmProcess(process, settings, f"{health.url}/v1", progress)

    back_off = BackOff(first=0.01, most=2)
    with pytest.raises(AdzError, match="given up after 2 failures"):
        Supervisor(start, f"{health.url}/v1", settings, progress, back_off).run()
    assert progress.lines[0].startswith("vLLM hangs: requests wait, and no step of the engine")
    assert len(started) == 2
    assert all(process.exit_code() is not None for process in started)
