"""Starting and stopping the server."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from adapterhub.derived.served import Derived
from adapterhub.derived.wanted import LARGEST_RANK
from adapterhub.errors import EXIT_INTERRUPTED, EXIT_OK, usage_error
from adapterhub.models import compute_device, load_base, load_tokenizer
from adapterhub.plugins import open_registry
from adapterhub.protocols import Progress, ServeSettings
from adapterhub.serve.address import api_url, cannot_listen
from adapterhub.serve.doors.connection import PatientConnection
from adapterhub.serve.doors.middleware import Doors
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.lifecycle.signals import TerminatedError, termination_raises
from adapterhub.serve.metrics import Metrics
from adapterhub_transformers.adapters import Adapters
from adapterhub_transformers.api import create_app
from adapterhub_transformers.grammar import Grammars
from adapterhub_transformers.kv_cache import cache_bytes
from adapterhub_transformers.service import Service, only_converted
from adapterhub_transformers.worker import LARGEST_BATCH, Worker

# How long uvicorn waits for connections once the answers were given time to end.
_CUT_SECONDS = 1
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
        if settings.data_parallel > 1:
            raise usage_error(
                "the transformers engine has no --data-parallel", "adz serve --engine vllm has it"
            )
        with termination_raises(), _bind(settings.host, settings.port) as listener:
            try:
                service = load_service(settings, progress)
            except (KeyboardInterrupt, TerminatedError) as stop:
                return _exit_code(stop)
            tls = settings.ssl_certfile is not None
            url = api_url(settings.host, listener.getsockname()[1], tls=tls)
            try:
                server = _Server(server_config(service, settings), settings, url)
                # uvicorn ends in order, and then raises the signal again.
                server.run(sockets=[listener])
            except (KeyboardInterrupt, TerminatedError) as stop:
                return _exit_code(stop)
            finally:
                service.worker.stop()
        return EXIT_OK


def _exit_code(stop: BaseException) -> int:
    return EXIT_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else EXIT_OK


def server_config(service: Service, settings: ServeSettings) -> uvicorn.Config:
    """The application behind its doors."""
    return uvicorn.Config(
        Doors(create_app(service), door_settings(settings, _AT_ONCE), service.metrics),
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
    context, metrics = min(lengths), Metrics()
    adapters = Adapters(
        registry,
        base,
        model,
        tokenizer,
        max_resident=settings.max_resident,
        context=context,
        residency=metrics.residency,
    )
    if adapters.why_static:
        progress.warn(
            f"requests to {base.name} run in batches that begin and end together: "
            f"{adapters.why_static}"
        )
    worker = Worker(adapters, tokenizer, cache_bytes=cache_bytes(model.device))
    grammars = Grammars(tokenizer, adapters.stop_ids)
    derived = Derived(settings.derivations, LARGEST_RANK, only_converted)
    return Service(registry, base, tokenizer, worker, context, progress, metrics, grammars, derived)


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
