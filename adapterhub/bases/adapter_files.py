"""The files of an adapter as PEFT writes them, and the facts that listings show."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import split_key

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
README = "README.md"
PAYLOAD = (CONFIG, WEIGHTS, README)
"""All that is stored of an adapter; the README may be missing."""
MAX_PAYLOAD = 4 * 2**30
"""Bytes that these may have together."""


def adapter_facts(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> dict[str, Any]:
    """`rank` (the largest), `alpha`, `modules` (how many are adapted), `targets` (their last
    names, whatever pattern chose them), `parameters` and the commonest `dtype`, from the header
    of the weights and the configuration."""
    keys = [key for name in tensors if (key := split_key(name)) is not None]
    ranks = [
        info.shape[0]
        for name, info in tensors.items()
        if name.removesuffix(".weight").endswith(".lora_A") and info.shape
    ]
    dtypes = Counter(info.dtype for info in tensors.values())
    facts = {
        "rank": max(ranks, default=None),
        "alpha": config.get("lora_alpha"),
        "modules": len({key.module for key in keys}) or None,
        "targets": sorted({key.module.rpartition(".")[2] for key in keys}) or None,
        "parameters": sum(info.elements for info in tensors.values()),
        "dtype": dtypes.most_common(1)[0][0] if dtypes else None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def lora_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """What the product of a module's LoRA factors is multiplied by, as PEFT reads the
    configuration: alpha / r, or alpha / sqrt(r) with rsLoRA."""
    alpha = config.get("lora_alpha", 8)
    # The first pattern that matches whole names up to the end: PEFT's get_pattern_key.
    for key, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
