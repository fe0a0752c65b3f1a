"""Random adapters as PEFT saves them, and PEFT's own words on what they are."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

NAMES = ["a", "b", "c"]


@cache
def _read_base(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def load_base(directory: Path) -> Any:
    return deepcopy(_read_base(directory))


def random_lora(
    base: Path, folder: Path, seed: int, dtype: torch.dtype = torch.float32, **options: Any
) -> Path:
    torch.manual_seed(seed)
    model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.empty_like(parameter).normal_(0, 0.2).to(dtype)
    model.save_pretrained(folder)
    return folder


def load_all(base: Path, paths: list[Path]) -> Any:
    """The adapters in one model, called a, b, c."""
    model = PeftModel.from_pretrained(load_base(base), paths[0], adapter_name="a")
    for name, path in zip(NAMES[1:], paths[1:], strict=False):
        model.load_adapter(path, adapter_name=name)
    return model


def add_weighted(model: Any, kind: str, weights: list[float], **options: Any) -> None:
    """PEFT's own merge of the first adapters, called `merged`."""
    names = NAMES[: len(weights)]
    model.add_weighted_adapter(names, weights, "merged", combination_type=kind, **options)


def lora_modules(model: Any) -> dict[str, Any]:
    """In the order in which PEFT goes through them."""
    return {
        name: module
        for name, module in model.base_model.model.named_modules()
        if hasattr(module, "lora_A") and (len(module.lora_A) or len(module.lora_embedding_A))
    }


def factors_of(module: Any, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a module, linear or embedding."""
    if adapter in module.lora_embedding_A:
        return module.lora_embedding_A[adapter].data, module.lora_embedding_B[adapter].data
    return module.lora_A[adapter].weight.data, module.lora_B[adapter].weight.data
