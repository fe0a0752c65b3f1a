"""A quantizer: weights rounded to 8 bits, one scale a row, held in their own dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adapterhub.models import compute_device


class Round8:
    """A `protocols.Quantizer`."""

    def load_arguments(self, options: Any) -> dict[str, Any]:
        """Nothing: the base is loaded as it is stored, and rounded afterwards."""
        return {}

    def prepare(self, model: Any) -> Any:
        """Round every linear layer but the output layer, in place."""
        for module in model.modules():
            if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
                module.weight.data = round_rows(module.weight.data)
        return model.requires_grad_(False).to(compute_device())


def round_rows(weight: torch.Tensor) -> torch.Tensor:
    """(rows, cols) of at most 255 different values a row, each within half a step."""
    step = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (weight / step).round() * step
