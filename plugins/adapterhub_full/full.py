"""Full fine-tuning."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from adapterhub.errors import usage_error
from adapterhub_full.options import FullOptions


class Full:
    """The method `full`."""

    def attach(self, model: Any, options: FullOptions, *, prepared: bool) -> Any:
        """A copy of the model, trainable and in float32: bfloat16 would lose small steps."""
        if getattr(model.config, "quantization_config", None) is not None:
            raise usage_error(
                "full trains the weights themselves, and those of this base are stored quantised",
                "train an adapter over it, or the base that it was made from",
            )
        return copy.deepcopy(model).float().requires_grad_(True)

    def save(self, model: Any, directory: Path) -> None:
        """Write the weights and the configuration as transformers reads them."""
        model.save_pretrained(directory)

    def load(self, model: Any, directory: Path) -> Any:
        """The stored model in float32, on the device of `model`, which takes no other part."""
        stored: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        return stored.to(next(model.parameters()).device).eval()
