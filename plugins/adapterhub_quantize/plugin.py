"""The quantizers as descriptors."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs

_NEEDS = ("torch", "transformers", "peft", "bitsandbytes")
_INSTALL = "pip install 'adapterhub[train]'"


@hookimpl
def adapterhub_quantizers() -> Iterable[specs.Quantizer]:
    """Both run on a CPU, and on a GPU."""
    yield specs.Quantizer(
        name="nf4",
        summary="4-bit NormalFloat with double quantisation: QLoRA",
        impl="adapterhub_quantize.quantizers:Nf4",
        config="adapterhub_quantize.options:Nf4Options",
        requires=_NEEDS,
        install_hint=_INSTALL,
        bits=4,
    )
    yield specs.Quantizer(
        name="int8",
        summary="8-bit integers with outliers kept apart: LLM.int8()",
        impl="adapterhub_quantize.quantizers:Int8",
        config="adapterhub_quantize.options:Int8Options",
        requires=_NEEDS,
        install_hint=_INSTALL,
        bits=8,
    )
