"""What this plugin offers. Many commands import it, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_methods() -> Iterator[specs.Method]:
    """`adz train --method lora-xs`"""
    yield specs.Method(
        name="lora-xs",
        summary="A small core between singular vectors of each weight (LoRA-XS)",
        impl="adz_lora_xs.lora_xs:LoraXs",
        config="adz_lora_xs.lora_xs_options:LoraXsOptions",
        storage="peft",
        mergeable=True,
        vllm=True,
        quantizers=(),
        quantizer_reason="the singular vectors are those of the plain weight",
        requires=("torch", "transformers", "peft", "safetensors"),
        install_hint="pip install 'adapterhub[train]'",
    )
