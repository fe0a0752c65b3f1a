"""The quantizers as descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adapterhub import hookimpl, specs

_NEEDS = ("torch", "transformers", "peft")
_INSTALL = "pip install 'adapterhub[train]'"


def _quantizer(name: str, summary: str, impl: str, config: str, **facts: Any) -> specs.Quantizer:
    library = facts.pop("library", "bitsandbytes")
    extra = _INSTALL if library == "bitsandbytes" else f"pip install {library}"
    return specs.Quantizer(
        name=name,
        summary=summary,
        impl=f"adapterhub_quantize.{impl}",
        config=f"adapterhub_quantize.options:{config}",
        requires=(*_NEEDS, library),
        install_hint=extra,
        **facts,
    )


@hookimpl
def adapterhub_quantizers() -> Iterable[specs.Quantizer]:
    """Those of bitsandbytes run on a CPU and on a GPU; the others are not proven on either."""
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
        "torchao", "PyTorch's own 8-bit weights, or 4-bit on a GPU", "others:TorchAo",
        "TorchAoOptions", bits=8, library="torchao", status="gpu-unproven",
    )  # fmt: skip
    yield _quantizer(
        "hqq", "Half-quadratic quantisation: 1 to 8 bits without data", "others:Hqq",
        "HqqOptions", bits=4, library="hqq", status="gpu-unproven",
    )  # fmt: skip
    yield _quantizer(
        "gptq", "A base that is stored as GPTQ made it", "others:Gptq", "StoredOptions", bits=4,
        library="gptqmodel", status="gpu-unproven",
    )  # fmt: skip
    yield _quantizer(
        "awq", "A base that is stored as AWQ made it", "others:Awq", "StoredOptions", bits=4,
        library="gptqmodel", status="gpu-unproven",
    )  # fmt: skip
