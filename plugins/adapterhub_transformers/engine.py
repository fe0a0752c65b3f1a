"""Starting and stopping the server."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn

from adapterhub.errors import EXIT_INTERRUPTED, EXIT_OK, usage_error
from adapterhub.models import compute_device, load_base, load_tokenizer
from adapterhub.plugins import open_registry
from adapterhub.protocols import Progress, ServeSettings
from adapterhub.serve.address import api_url
from adapterhub.serve.doors.connection import PatientConnection
from adapterhub.serve.doors.middleware import Doors
from adapterhub.serve.doors.settings import door_settings
from adapterhub_transformers.api import create_app
from adapterhub_transformers.service import Service
from adapterhub_transformers.worker import LARGEST_BATCH, Worker

# How long SIGTERM or Ctrl-C waits for the answers that are being written.
_DRAIN_SECONDS = 20
# Two batches: one that runs, one that is ready when it ends.
_AT_ONCE = 2 * LARGEST_BATCH


class TransformersEngine:
    """Serves a base and its adapters over the OpenAI API from this process."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until Ctrl-C (130) or SIGTERM (0)."""
        if settings.extra:
            raise usage_error(
                f"the transformers engine has no flags of its own: {' '.join(settings.extra)}"
            )
        with _bind(settings.host, settings.port) as listener:
            service = load_service(settings, progress)
            tls = settings.ssl_certfile is not None
            url = api_url(settings.host, listener.getsockname()[1], tls=tls)
            config = server_config(service, settings)
            # uvicorn ends in order and then raises the signal again, for whoever was there before.
            before = signal.signal(signal.SIGTERM, lambda *_: None)
            try:
                _Server(config, lambda: settings.ready(url)).run(sockets=[listener])
            except KeyboardInterrupt:
                return EXIT_INTERRUPTED
            finally:
                signal.signal(signal.SIGTERM, before)
                service.worker.stop()
        return EXIT_OK


def server_config(service: Service, settings: ServeSettings) -> uvicorn.Config:
    """The application behind its doors."""
    return uvicorn.Config(
        Doors(create_app(service), door_settings(settings, _AT_ONCE)),
        http=PatientConnection,
        ssl_keyfile=settings.ssl_keyfile,
        ssl_certfile=settings.ssl_certfile,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()


def load_service(settings: ServeSettings, progress: Progress) -> Service:
    """Load the base and start the thread that runs it."""
    registry = open_registry()
    base = registry.base(settings.base)
    with progress.task(f"loading {base.name}", None):
        model = load_base(base, dtype=settings.dtype).to(compute_device())
        tokenizer = load_tokenizer(base)
    longest = getattr(model.config, "max_position_embeddings", None)
    lengths = [length for length in (settings.max_context, longest) if length]
    if not lengths:
        raise usage_error(f"{base.name} does not say how long its context is", "give --max-context")
    worker = Worker(registry, base, model, tokenizer, max_resident=settings.max_resident)
    return Service(registry, base, tokenizer, worker, min(lengths), progress)


def _bind(host: str, port: int) -> socket.socket:
    """The address, taken before the base is loaded; clients are refused until uvicorn listens."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener
