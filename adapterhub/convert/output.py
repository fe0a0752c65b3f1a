"""Writing the result: a plain LoRA as PEFT reads it, the same bytes each time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.functional import pad

from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.bases.modules import PREFIX
from adapterhub.convert.factors import ModuleFactors
from adapterhub.convert.source import Source


def write_lora(
    directory: Path,
    source: Source,
    modules: Mapping[str, ModuleFactors],
    kinds: Mapping[str, str],
) -> int:
    """Write weights and configuration of one rank, the largest that a module needs; return it.

    Smaller ones are filled up with zeros, so that every loader and server reads it; alpha is
    the rank, so that the scale is 1.
    """
    rank = max(1, *(factors.a.shape[0] for factors in modules.values()))
    tensors: dict[str, torch.Tensor] = {}
    for module, factors in modules.items():
        a = pad(factors.a, (0, 0, 0, rank - factors.a.shape[0]))
        b = pad(factors.b, (0, rank - factors.b.shape[1]))
        if kinds[module] == "embedding":
            # PEFT adds (B A)^T to an embedding's (rows, width).
            tensors[f"{PREFIX}{module}.lora_embedding_A"] = b.T.contiguous()
            tensors[f"{PREFIX}{module}.lora_embedding_B"] = a.T.contiguous()
        else:
            tensors[f"{PREFIX}{module}.lora_A.weight"] = a
            tensors[f"{PREFIX}{module}.lora_B.weight"] = b
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(_config(source, kinds, rank), indent=2, sort_keys=True)
    (directory / CONFIG).write_text(text + "\n", encoding="utf-8")
    return rank


def _config(source: Source, kinds: Mapping[str, str], rank: int) -> dict[str, Any]:
    return {
        "base_model_name_or_path": source.link.name,
        "bias": "none",
        "fan_in_fan_out": "transposed" in kinds.values(),
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(kinds),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
