"""torchao and HQQ, which quantise while loading, and GPTQ and AWQ, which a base is stored by."""

from __future__ import annotations

from typing import Any

import torch
from peft import prepare_model_for_kbit_training

from adapterhub.errors import usage_error
from adapterhub.models import compute_device
from adapterhub_quantize.options import HqqOptions, StoredOptions, TorchAoOptions
from adapterhub_quantize.quantizers import compute_dtype


class TorchAo:
    """PyTorch's own 8-bit integers, one scale a row or a group."""

    def load_arguments(self, options: TorchAoOptions) -> dict[str, Any]:
        """A `quantization_config` for transformers."""
        from torchao.quantization import Int8WeightOnlyConfig, PerGroup, PerRow
        from transformers import TorchAoConfig

        scales = PerGroup(options.group_size) if options.group_size else PerRow()
        config = Int8WeightOnlyConfig(granularity=scales, set_inductor_config=False)
        return {"quantization_config": TorchAoConfig(quant_type=config)}

    def prepare(self, model: Any) -> Any:
        """Freeze the base, where it is computed: transformers leaves it where it was read."""
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return model.to(compute_device())


class Hqq:
    """Half-quadratic quantisation (Badri and Shaji, 2023), which needs no data.

    By hqq's own layers, put in after loading: transformers 5 has no way to load them.
    """

    options: HqqOptions

    def load_arguments(self, options: HqqOptions) -> dict[str, Any]:
        """Nothing: the base is loaded in floats."""
        self.options = options
        return {}

    def prepare(self, model: Any) -> Any:
        """Quantise every linear layer but the output layer, in place, where it is computed."""
        device = compute_device()
        output = model.get_output_embeddings()
        for name, layer in list(model.named_modules()):
            if isinstance(layer, torch.nn.Linear) and layer is not output:
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, self._held(name, layer, device))
        return model.requires_grad_(False).to(device)

    def _held(self, name: str, layer: torch.nn.Linear, device: torch.device) -> torch.nn.Module:
        from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

        size = self.options.group_size
        if layer.weight.numel() % size:
            shape = " x ".join(map(str, layer.weight.shape))
            raise usage_error(
                f"quantizer.group_size={size} does not divide the {shape} weights of {name}",
                "choose a power of two, such as 32",
            )
        config = BaseQuantizeConfig(nbits=self.options.bits, group_size=size)
        stored, computed = layer.weight.dtype, compute_dtype()
        # On a GPU its scales keep the layer's own numbers, and would not multiply with these.
        layer = layer.to(computed)
        held: torch.nn.Module = HQQLinear(layer, config, compute_dtype=computed, device=str(device))
        # Its product casts nothing, and its backward pass has no autocast.
        held.register_forward_pre_hook(lambda _, given: (given[0].to(computed),))
        held.register_forward_hook(lambda _, given, result: result.to(stored))
        return held


class Stored:
    """`gptq` and `awq`: transformers loads such a base through gptqmodel as it is stored."""

    def load_arguments(self, options: StoredOptions) -> dict[str, Any]:
        """Nothing: the base's own configuration says how."""
        return {}

    def prepare(self, model: Any) -> Any:
        """Freeze the base."""
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
