"""Starting and stopping the server."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI

from adapterhub import AdzError
from adapterhub.derived.served import Derived
from adapterhub.derived.wanted import LARGEST_RANK
from adapterhub.errors import usage_error
from adapterhub.generate import stop_tokens
from adapterhub.manifest import BaseRecord
from adapterhub.models import load_tokenizer
from adapterhub.plugins import open_registry
from adapterhub.protocols import Progress, ServeSettings
from adapterhub.serve.app import serve_app
from adapterhub.serve.metrics import Metrics
from adz_llama_cpp.api import create_app
from adz_llama_cpp.files import GgufFiles
from adz_llama_cpp.flags import Flags, read_flags
from adz_llama_cpp.llama import LlamaCpp
from adz_llama_cpp.runner import Runner
from adz_llama_cpp.service import Service, only_converted

# A laptop's memory: every slot has so many tokens, unless --max-context says otherwise.
_CONTEXT = 4096


class LlamaCppEngine:
    """A `protocols.Engine`."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until Ctrl-C (130) or SIGTERM (0)."""
        flags = read_flags(settings.extra, settings.dtype)
        if settings.data_parallel > 1:
            raise usage_error("llama-cpp has no --data-parallel", "start more servers")
        started: list[Service] = []

        def make_app(metrics: Metrics) -> FastAPI:
            started.append(load_service(settings, flags, progress, metrics))
            return create_app(started[0])

        def stop() -> None:
            for service in started:
                service.runner.stop()

        # As many again wait in the engine, so that a slot is filled as soon as it is free.
        return serve_app(make_app, settings, at_once=2 * flags.slots, stop=stop)


def load_service(
    settings: ServeSettings, flags: Flags, progress: Progress, metrics: Metrics
) -> Service:
    """Write the base as GGUF where that was not done before, load it, and start its thread."""
    registry = open_registry()
    base = registry.base(settings.base)
    config = json.loads((Path(base.path) / "config.json").read_text(encoding="utf-8"))
    context = min(settings.max_context or _CONTEXT, config["max_position_embeddings"])
    files = GgufFiles(flags.kind)
    files.sweep(registry)
    file = flags.gguf or files.base(base, progress)
    with progress.task(f"loading {file.name}", None):
        model = LlamaCpp(file, context, flags)
    check_sizes(file, model.sizes, config, base)
    tokenizer = load_tokenizer(base)
    runner = Runner(
        model,
        tokenizer,
        stop_tokens(_generation(base), tokenizer),
        slots=flags.slots,
        max_resident=settings.max_resident,
        residency=metrics.residency,
    )
    derived = Derived(settings.derivations, LARGEST_RANK, only_converted)
    return Service(registry, base, tokenizer, files, runner, context, progress, metrics, derived)


def check_sizes(file: Path, sizes: dict[str, int], config: Any, base: BaseRecord) -> None:
    """Raise AdzError for a GGUF file that cannot be one of the base."""
    for name, size in sizes.items():
        if size != config[name]:
            raise AdzError(
                f"{file} is not {base.name}: its {name} is {size}, not {config[name]}",
                "give a file that was made from this base",
            )


def _generation(base: BaseRecord) -> Any:
    """What `stop_tokens` reads of a model, without the model."""
    from transformers import AutoConfig, GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(base.path, local_files_only=True)
    except OSError:
        config = AutoConfig.from_pretrained(base.path, local_files_only=True)
        found = GenerationConfig.from_model_config(config)
    return SimpleNamespace(generation_config=found)
