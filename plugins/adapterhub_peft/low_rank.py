"""Which of PEFT's layers are plain LoRA, so that the trainer may compute them its own way."""

from __future__ import annotations

from typing import Any

import torch

from adapterhub.protocols import LowRank
from adapterhub.train.loss import has_dropout


def low_rank(layer: Any) -> LowRank | None:
    """The parts of a plain LoRA of one adapter over a linear layer, as PEFT builds it; None for
    every other module."""
    if not hasattr(layer, "lora_A") or len(layer.active_adapters) != 1:
        return None
    (name,) = layer.active_adapters
    plain = (
        name in layer.lora_A
        and name not in layer.lora_variant
        and isinstance(layer.lora_A[name], torch.nn.Linear)
        and layer.lora_B[name].bias is None
        and not has_dropout(layer.lora_dropout)
        and isinstance(layer.base_layer, torch.nn.Linear)
        and not any(p.requires_grad for p in layer.base_layer.parameters())
        and not layer.merged
    )
    if not plain:
        return None
    return LowRank(
        layer.base_layer,
        layer.lora_A[name],
        layer.lora_B[name],
        layer.scaling[name],
        active=lambda: not layer.disable_adapters,
    )
