"""Starting and stopping the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI

from adapterhub.derived.served import Derived
from adapterhub.derived.wanted import LARGEST_RANK
from adapterhub.errors import usage_error
from adapterhub.models import compute_device, load_base, load_tokenizer
from adapterhub.plugins import open_registry
from adapterhub.protocols import Progress, ServeSettings
from adapterhub.serve import app
from adapterhub.serve.metrics import Metrics
from adapterhub_transformers.adapters import Adapters
from adapterhub_transformers.api import create_app
from adapterhub_transformers.grammar import Grammars
from adapterhub_transformers.kv_cache import cache_bytes
from adapterhub_transformers.service import Service, only_converted
from adapterhub_transformers.worker import LARGEST_BATCH, Worker

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
        stopping: list[Service] = []

        def make_app(metrics: Metrics) -> FastAPI:
            stopping.append(load_service(settings, progress, metrics))
            return create_app(stopping[0])

        def stop() -> None:
            for service in stopping:
                service.worker.stop()

        return app.serve_app(make_app, settings, at_once=_AT_ONCE, stop=stop)


def server_config(service: Service, settings: ServeSettings) -> uvicorn.Config:
    """The application behind its doors, for who runs the server itself."""
    return app.server_config(create_app(service), settings, _AT_ONCE, service.metrics)


def load_service(
    settings: ServeSettings, progress: Progress, metrics: Metrics | None = None
) -> Service:
    """Load the base and start the thread that runs it."""
    # Each thread that computes keeps OpenMP threads of its own, which stop waiting actively as
    # soon as there are more of them than CPUs: every product then costs two system calls. What
    # is computed here must not leave some beside the model's thread.
    with ThreadPoolExecutor(1, thread_name_prefix="adapterhub-loading") as loading:
        return loading.submit(_load_service, settings, progress, metrics).result()


def _load_service(settings: ServeSettings, progress: Progress, metrics: Metrics | None) -> Service:
    registry = open_registry()
    base = registry.base(settings.base)
    with progress.task(f"loading {base.name}", None):
        model = load_base(base, dtype=settings.dtype).to(compute_device())
        tokenizer = load_tokenizer(base)
    longest = getattr(model.config, "max_position_embeddings", None)
    lengths = [length for length in (settings.max_context, longest) if length]
    if not lengths:
        raise usage_error(f"{base.name} does not say how long its context is", "give --max-context")
    context, metrics = min(lengths), metrics or Metrics()
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
