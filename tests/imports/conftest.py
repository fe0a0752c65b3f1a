"""A LoRA in a directory like a Trainer's output, and the base that it fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

Adz = Callable[..., Any]
Q = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG = {
    "bias": "none",
    "lora_alpha": 8,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "r": 4,
    "target_modules": ["layers.0.self_attn.q_proj"],
    "task_type": "CAUSAL_LM",
}


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """A LoRA of one module of the tiny Llama, in a directory like a Trainer's output."""

    def make(folder: str = "adapter", width: int = 64, **config: Any) -> Path:
        directory = tmp_path / folder
        directory.mkdir(parents=True)
        random = np.random.default_rng(0)
        tensors = {
            f"{Q}.lora_A.weight": random.normal(size=(4, width)).astype(np.float32),
            f"{Q}.lora_B.weight": random.normal(size=(64, 4)).astype(np.float32),
        }
        save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
        (directory / "README.md").write_text("# A card")
        return directory

    return make


@pytest.fixture
def base(adz: Adz, tiny_base_dir: Path) -> str:
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    return "tiny"
