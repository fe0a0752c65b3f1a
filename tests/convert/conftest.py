"""Adapters of many of PEFT's methods over the tiny base, made by PEFT itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture
def save_adapter(tiny_base_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """Attach an adapter of this configuration, move what is trainable, and save it."""
    counter = iter(range(1000))

    def save(config: peft.PeftConfig, *, initial: Path | None = None, step: float = 0.05) -> Path:
        config.task_type = "CAUSAL_LM"
        torch.manual_seed(1)
        model = peft.get_peft_model(load(tiny_base_dir), config)
        if initial is not None:
            # As PEFT's guides say: what PEFT then stores is loaded as it is.
            model.peft_config["default"].init_lora_weights = True
            model.save_pretrained(initial)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=step)
        if initial is not None:
            model.peft_config["default"].init_lora_weights = config.init_lora_weights
        folder = tmp_path / f"adapter-{next(counter)}"
        model.save_pretrained(folder)
        return folder

    return save


def load(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
