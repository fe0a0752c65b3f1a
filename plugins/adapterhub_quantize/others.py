"""torchao, HQQ, GPTQ and AWQ, through transformers' `quantization_config`."""

from __future__ import annotations

from typing import Any

from peft import prepare_model_for_kbit_training
from transformers import AwqConfig, GPTQConfig, HqqConfig, TorchAoConfig

from adapterhub.errors import AdzError
from adapterhub.models import compute_device
from adapterhub_quantize.options import HqqOptions, StoredOptions, TorchAoOptions


class _Quantizer:
    def prepare(self, model: Any) -> Any:
        """Freeze the base; norms and embeddings in float32, as QLoRA trains."""
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


class TorchAo(_Quantizer):
    """PyTorch's own integers for weights."""

    def load_arguments(self, options: TorchAoOptions) -> dict[str, Any]:
        """A `quantization_config`; AdzError for int4 without a GPU."""
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

        if options.weights == "int8":
            return {"quantization_config": TorchAoConfig(quant_type=Int8WeightOnlyConfig())}
        _need_gpu("torchao with quantizer.weights=int4")
        four = Int4WeightOnlyConfig(group_size=options.group_size)
        return {"quantization_config": TorchAoConfig(quant_type=four)}


class Hqq(_Quantizer):
    """Half-quadratic quantisation, which needs no data."""

    def load_arguments(self, options: HqqOptions) -> dict[str, Any]:
        """A `quantization_config`; AdzError without a GPU."""
        _need_gpu("hqq")
        config = HqqConfig(nbits=options.bits, group_size=options.group_size)
        return {"quantization_config": config}


class Gptq(_Quantizer):
    """A base that is stored as GPTQ made it."""

    def load_arguments(self, options: StoredOptions) -> dict[str, Any]:
        """A `quantization_config`; AdzError without a GPU."""
        _need_gpu("gptq")
        config = GPTQConfig(bits=options.bits, group_size=options.group_size)
        return {"quantization_config": config}


class Awq(_Quantizer):
    """A base that is stored as AWQ made it."""

    def load_arguments(self, options: StoredOptions) -> dict[str, Any]:
        """A `quantization_config`; AdzError without a GPU."""
        _need_gpu("awq")
        config = AwqConfig(bits=options.bits, group_size=options.group_size)
        return {"quantization_config": config}


def _need_gpu(what: str) -> None:
    if compute_device().type == "cpu":
        raise AdzError(f"{what} needs a GPU, and there is none", "on a CPU: --quantizer nf4")
