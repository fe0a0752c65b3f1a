"""PEFT's methods as descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adapterhub import hookimpl, specs

_NEEDS = ("torch", "transformers", "peft")
_INSTALL = "pip install 'adapterhub[train]'"


def _method(name: str, summary: str, impl: str, config: str, **facts: Any) -> specs.Method:
    return specs.Method(
        name=name,
        summary=summary,
        impl=f"adapterhub_peft.methods:{impl}",
        config=f"adapterhub_peft.options:{config}",
        requires=_NEEDS,
        install_hint=_INSTALL,
        **facts,
    )


@hookimpl
def adapterhub_methods() -> Iterable[specs.Method]:
    """The facts are PEFT's and vLLM's, each of them tested."""
    yield _method(
        "lora", "Low-rank updates of linear layers", "Lora", "LoraOptions",
        mergeable=True, convertible=True, vllm=True,
    )  # fmt: skip
    yield _method(
        "rslora", "LoRA scaled by alpha / sqrt(r), for high ranks", "Lora", "RsLoraOptions",
        mergeable=True, convertible=True, vllm=True,
    )  # fmt: skip
    yield _method(
        "dora", "LoRA with the magnitude of each weight learnt apart", "Lora", "DoraOptions",
        mergeable=True, convertible=True,
        quantizers=("nf4",),
        quantizer_reason="PEFT and bitsandbytes lose the scales of 8-bit weights after the first "
        "step",
    )  # fmt: skip
    yield _method(
        "ia3", "One learnt scale an activation: few parameters", "Ia3", "Ia3Options",
        mergeable=True, convertible=True,
    )  # fmt: skip
    yield _method(
        "prefix", "Learnt keys and values before every layer's own", "Prefix", "PrefixOptions"
    )
    yield _method("prompt", "Learnt embeddings before the prompt", "Prompt", "PromptOptions")
