"""What this plugin offers. Many commands import it, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_engines() -> Iterator[specs.Engine]:
    """`adz serve BASE --engine llama-cpp`"""
    yield specs.Engine(
        name="llama-cpp",
        summary="llama.cpp: a GGUF of the base and every LoRA, for a laptop",
        impl="adz_llama_cpp.engine:LlamaCppEngine",
        requires=("llama_cpp", "gguf", "torch", "transformers", "fastapi", "uvicorn"),
        install_hint="pip install adz-llama-cpp",
        # Never the default: who wants it names it.
        priority=-10,
        status="experimental",
    )
