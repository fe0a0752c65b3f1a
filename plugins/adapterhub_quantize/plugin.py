"""The quantizers as descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adapterhub import hookimpl, specs

_NEEDS = ("torch", "transformers", "peft")
_INSTALL = {
    "bitsandbytes": "pip install 'adapterhub[train]'",
    "torchao": "pip install 'adapterhub[torchao]'",
    "hqq": "pip install 'adapterhub[hqq]'",
    "gptqmodel": "pip install gptqmodel",
}


def _quantizer(name: str, summary: str, impl: str, config: str, **facts: Any) -> specs.Quantizer:
    library = facts.pop("library", "bitsandbytes")
    return specs.Quantizer(
        name=name,
        summary=summary,
        impl=f"adapterhub_quantize.{impl}",
        config=f"adapterhub_quantize.options:{config}",
        requires=(*_NEEDS, library),
        install_hint=_INSTALL[library],
        **facts,
    )


@hookimpl
def adapterhub_quantizers() -> Iterable[specs.Quantizer]:
    """Those of bitsandbytes, torchao and hqq are tested on a CPU and a tiny base; the others
    nowhere."""
    yield _quantizer(
        "nf4", "4-bit NormalFloat with double quantisation: QLoRA", "quantizers:Nf4",
        "FourBitOptions", bits=4,
    )  # fmt: skip
    yield _quantizer(
        "fp4", "4-bit floats with double quantisation", "quantizers:Fp4", "FourBitOptions", bits=4
    )
    yield _quantizer(
        "int8", "8-bit integers with outliers kept apart: LLM.int8()", "quantizers:Int8",
        "Int8Options", bits=8,
    )  # fmt: skip
    yield _quantizer(
        "torchao", "PyTorch's own 8-bit weights", "others:TorchAo", "TorchAoOptions", bits=8,
        library="torchao", status="experimental",
    )  # fmt: skip
    yield _quantizer(
        "hqq", "Half-quadratic quantisation: 1 to 8 bits without data", "others:Hqq",
        "HqqOptions", bits=4, library="hqq", status="experimental",
    )  # fmt: skip
    for name in ("gptq", "awq"):
        yield _quantizer(
            name, f"A base that is stored as {name.upper()} made it (not tried)", "others:Stored",
            "StoredOptions", bits=4, library="gptqmodel", status="gpu-unproven", stored_only=True,
        )  # fmt: skip
