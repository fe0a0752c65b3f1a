"""bitsandbytes, through transformers' `quantization_config`."""

from __future__ import annotations

import logging
from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig

from adapterhub.models import compute_device, cpu_has_bf16
from adapterhub_quantize.options import FourBitOptions, Int8Options


class _BitsAndBytes:
    def prepare(self, model: Any) -> Any:
        """Freeze the base; norms and embeddings in float32, as QLoRA trains."""
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


class _FourBits(_BitsAndBytes):
    kind: str

    def load_arguments(self, options: FourBitOptions) -> dict[str, Any]:
        """A `quantization_config` that computes in what the hardware is fast in."""
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.kind,
            bnb_4bit_use_double_quant=options.double_quant,
            bnb_4bit_compute_dtype=compute_dtype(),
        )
        return {"quantization_config": config}


class Nf4(_FourBits):
    """4-bit NormalFloat."""

    kind = "nf4"


class Fp4(_FourBits):
    """4-bit floats."""

    kind = "fp4"


class Int8(_BitsAndBytes):
    """LLM.int8()."""

    def load_arguments(self, options: Int8Options) -> dict[str, Any]:
        """A `quantization_config`."""
        # bitsandbytes says at every product that it computes in float16; once is in its manual.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=options.threshold)
        return {"quantization_config": config}


def compute_dtype() -> torch.dtype:
    """What the hardware computes fast in."""
    on_cpu = compute_device().type == "cpu"
    return torch.float32 if on_cpu and not cpu_has_bf16() else torch.bfloat16
