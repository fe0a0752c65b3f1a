"""LoRA factors that make up for what a 4-bit quantizer lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adapterhub.bases.digests import weight_files
from adapterhub.bases.headers import read_header
from adapterhub.bases.tensors import read_tensor
from adapterhub.errors import AdzError


@torch.no_grad()
def begin_at_residual(layers: Mapping[str, Any], directory: Path, adapter: str) -> None:
    """Set the factors of each layer to the best of their rank for W - Q(W).

    layers: PEFT's LoRA layers over bitsandbytes' 4-bit ones, by the name of the base's module.
    directory: the base's files, which hold W. Raises AdzError where they hold no such weight.
    """
    stored = {
        name: (file, info)
        for file in weight_files(directory)
        for name, info in read_header(file).items()
    }
    for name, layer in layers.items():
        if f"{name}.weight" not in stored:
            raise AdzError(f"LoftQ finds no weight of {name} in {directory.name}")
        plain = read_tensor(*stored[f"{name}.weight"]).float()
        base = layer.get_base_layer()
        residual = plain.to(base.weight.device) - _unpacked(base)
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        u, s, v = torch.linalg.svd(residual, full_matrices=False)
        rank = a.shape[0]
        root = (s[:rank] / layer.scaling[adapter]).sqrt()
        a.copy_(root[:, None] * v[:rank])
        b.copy_(u[:, :rank] * root)


def _unpacked(base: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    if getattr(base.weight, "quant_state", None) is None:
        raise AdzError("LoftQ works over bitsandbytes' 4 bits only", "--quantizer nf4")
    weight: torch.Tensor = dequantize_4bit(base.weight.data, base.weight.quant_state)
    return weight.float()
