"""An ASGI application behind the doors, from the first signal to the last answer.

What an engine that runs in this process needs: keys, limits, draining, metrics and the log of
requests are the doors'; the application answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from adapterhub.errors import EXIT_INTERRUPTED, EXIT_OK
from adapterhub.protocols import ServeSettings
from adapterhub.serve.address import api_url, cannot_listen
from adapterhub.serve.doors.connection import PatientConnection
from adapterhub.serve.doors.middleware import Doors
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.lifecycle.signals import TerminatedError, termination_raises
from adapterhub.serve.metrics import Metrics

# How long uvicorn waits for connections once the answers were given time to end.
_CUT_SECONDS = 1


def serve_app(
    make_app: Callable[[Metrics], Any],
    settings: ServeSettings,
    *,
    at_once: int,
    stop: Callable[[], None] = lambda: None,
) -> int:
    """Serve an ASGI application at the address of `settings` until Ctrl-C or SIGTERM; returns the
    exit code.

    make_app: loads what has to be loaded and returns the application; it is called once the
    address is taken, with the metrics that the doors count in. at_once: the engine's own number
    of requests. stop: called at the end, also when `make_app` did not come to its end.
    Raises AdzError where nothing can listen there.
    """
    with termination_raises(), _bind(settings.host, settings.port) as listener:
        try:
            metrics = Metrics()
            config = server_config(make_app(metrics), settings, at_once, metrics)
            tls = settings.ssl_certfile is not None
            url = api_url(settings.host, listener.getsockname()[1], tls=tls)
            # uvicorn ends in order, and then raises the signal again.
            _Server(config, settings, url).run(sockets=[listener])
        except (KeyboardInterrupt, TerminatedError) as signal:
            return EXIT_INTERRUPTED if isinstance(signal, KeyboardInterrupt) else EXIT_OK
        finally:
            stop()
    return EXIT_OK


def server_config(
    app: Any, settings: ServeSettings, at_once: int, metrics: Metrics
) -> uvicorn.Config:
    """The application behind its doors."""
    return uvicorn.Config(
        Doors(app, door_settings(settings, at_once), metrics),
        http=PatientConnection,
        ssl_keyfile=settings.ssl_keyfile,
        ssl_certfile=settings.ssl_certfile,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=_CUT_SECONDS,
    )


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Says when it answers. The first signal closes the doors and lets answers end, the second
    cuts them."""

    def __init__(self, config: uvicorn.Config, settings: ServeSettings, url: str) -> None:
        super().__init__(config)
        self._settings = settings
        self._url = url
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        self._settings.status("ready")
        self._settings.ready(self._url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is not None or not self.started:
            super().handle_exit(sig, frame)
            return
        self._draining = self._loop.create_task(self._drain(sig, frame))
        # A signal does not wake the loop.
        self._loop.call_soon_threadsafe(lambda: None)

    async def _drain(self, sig: int, frame: FrameType | None) -> None:
        self._settings.status("draining")
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self.config.app.drain()
        except TimeoutError:
            pass
        super().handle_exit(sig, frame)


def _bind(host: str, port: int) -> socket.socket:
    """The address, taken before the base is loaded; clients are refused until uvicorn listens."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise cannot_listen(host, port, error) from error
    return listener
