"""An embedded server on the tiny base whose derivations a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import httpx
import pytest
import uvicorn

from adapterhub.cli.output import TerminalProgress
from adapterhub.protocols import Derivations, ServeSettings
from adapterhub_transformers.engine import load_service, server_config


class Ask(Protocol):
    """Asks for a completion; `key` is a client's."""

    def __call__(self, model: str, key: str | None = None) -> httpx.Response: ...


@contextmanager
def running(derivations: Derivations) -> Iterator[Ask]:
    settings = ServeSettings("tiny", derivations=derivations)
    service: Any = load_service(settings, TerminalProgress())
    config = server_config(service, settings)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]

    def ask(model: str, key: str | None = None) -> httpx.Response:
        body = {"model": model, "prompt": "The quick", "max_tokens": 8, "temperature": 0}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"http://127.0.0.1:{port}/v1/completions"
        return httpx.post(url, json=body, headers=headers, timeout=120)

    try:
        yield ask
    finally:
        server.should_exit = True
        thread.join(20)
        service.worker.stop()


@pytest.fixture
def serve(tiny_base: Any) -> Iterator[Callable[[Derivations], Ask]]:
    """Starts a server in this process."""
    with ExitStack() as stack:
        yield lambda derivations: stack.enter_context(running(derivations))
