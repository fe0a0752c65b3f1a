"""Hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_engines() -> Iterator[specs.Engine]:
    """The default where no engine with a higher priority is installed."""
    yield specs.Engine(
        name="transformers",
        summary="transformers and PEFT: slower than vLLM, serves every method",
        impl="adapterhub_transformers.engine:TransformersEngine",
        requires=("torch", "transformers", "peft", "fastapi", "uvicorn"),
        install_hint="pip install 'adapterhub[serve]'",
        priority=0,
    )
