"""Puts our doors before vLLM's routes, and our connections under them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

from adapterhub.serve.doors.settings import DoorSettings
from adapterhub_vllm.adapters import Adapters
from adapterhub_vllm.child import DRAIN
from adapterhub_vllm.contract import check_accepts

if TYPE_CHECKING:
    from fastapi import FastAPI

    from adapterhub.serve.doors.middleware import Doors
    from adapterhub.serve.pulse import Pulse

AT_ONCE = 256
"""Requests in vLLM at once: it batches that many, and more would wait in its own queue, in
which adapters have no turns."""


def check() -> None:
    """Raise AdzError where vLLM does not start its server as we know it."""
    from vllm.entrypoints.launchers.api_server import entry

    # What vLLM gives beside these is handed on; 0.31 gives no `peer_loads`.
    check_accepts(entry.serve_http, ("app", "sock", "uvicorn_kwargs"))


def install(settings: DoorSettings, adapters: Adapters, pulse: Pulse) -> None:
    """Every server that this process starts is behind the doors, and `adapters` answer in it."""
    from prometheus_client import REGISTRY
    from vllm.entrypoints.launchers.api_server import entry

    from adapterhub.serve.doors.connection import PatientConnection
    from adapterhub.serve.doors.middleware import Doors
    from adapterhub.serve.metrics import Metrics

    metrics = Metrics()
    # vLLM shows all that is registered there beside its own.
    REGISTRY.register(metrics)
    serve_http = entry.serve_http

    async def serve_behind_doors(app: FastAPI, **options: Any) -> Any:
        # vLLM has put its middleware together already; the doors stand before all of it.
        stack = app.middleware_stack or app.build_middleware_stack()
        engine = app.state.engine_client
        adapters.start(engine, metrics.residency)
        slots = engine.vllm_config.lora_config.max_loras

        async def refresh() -> None:
            held = [version.reference for version in adapters.residents.versions()]
            metrics.residency.order(held, slots)

        metrics.refresh = refresh

        async def with_adapters(scope: Any, receive: Any, send: Any) -> None:
            with adapters.request():
                await stack(scope, receive, send)

        app.middleware_stack = doors = Doors(with_adapters, settings, metrics, pulse)
        end_after_drain(doors)
        return await serve_http(app, **options, http=PatientConnection)

    entry.serve_http = serve_behind_doors
    # vLLM's own check, which closes a server into which our plugin did not come, knows one key.
    os.environ.pop("VLLM_API_KEY", None)


def end_after_drain(doors: Doors) -> None:
    """Let the signal DRAIN close the doors of this event loop, and end vLLM when all is answered.

    vLLM's own way of ending cuts what is being answered, or goes on taking requests.
    """
    loop = asyncio.get_running_loop()

    async def drain() -> None:
        await doors.drain()
        os.kill(os.getpid(), signal.SIGTERM)

    tasks: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(DRAIN, lambda: tasks.add(loop.create_task(drain())))
