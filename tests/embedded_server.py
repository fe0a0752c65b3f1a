"""The embedded engine as a server in the tests' own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from adapterhub.cli.output import TerminalProgress
from adapterhub.protocols import ServeSettings
from adapterhub_transformers.engine import load_service, server_config


@contextmanager
def embedded_server(settings: ServeSettings) -> Iterator[tuple[str, Any]]:
    """Behind its doors on a free port: the address, and the service within."""
    service = load_service(settings, TerminalProgress())
    config = server_config(service, settings)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", service
    finally:
        server.should_exit = True
        thread.join(20)
        service.worker.stop()
    assert not thread.is_alive()
