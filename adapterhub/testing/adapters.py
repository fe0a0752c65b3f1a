"""LoRA adapters over the tiny base, made from random numbers in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord, Version

_PREFIX = "base_model.model.model.layers"
# (outputs, inputs) of two of the tiny base's linear layers.
_SHAPES = {"self_attn.q_proj": (64, 64), "mlp.up_proj": (128, 64)}
_RANKS = {"tiny-a": 2, "tiny-b": 4, "tiny-c": 4}
_LAYERS = {"tiny-a": 2, "tiny-b": 2, "tiny-c": 1}


def commit_tiny_adapters(base: BaseRecord, folder: Path) -> list[Version]:
    """Commit `tiny-a`, `tiny-b` and `tiny-c`: always the same bytes."""
    return [
        commit_tiny_lora(base, folder / name, name, rank, layers=_LAYERS[name], seed=seed)
        for seed, (name, rank) in enumerate(_RANKS.items())
    ]


def commit_tiny_lora(
    base: BaseRecord, folder: Path, name: str, rank: int, *, layers: int = 2, seed: int = 0
) -> Version:
    """Commit a LoRA of this rank over `base` as the next version of `name`; its payload is
    written to `folder`, as PEFT would write it."""
    from adapterhub.manifest import BaseLink, Manifest
    from adapterhub.plugins import open_registry

    _write_payload(folder, rank, layers, seed)
    manifest = Manifest(
        name=name,
        method="lora",
        made_by="import",
        base=BaseLink(status="recorded", name=base.name, digests=base.digests),
        prompt_format="plain",
        adapter={"rank": rank, "alpha": rank},
    )
    return open_registry().commit(manifest, folder)


def _write_payload(folder: Path, rank: int, layers: int, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for layer in range(layers):
        for module, (rows, cols) in _SHAPES.items():
            name = f"{_PREFIX}.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = random.normal(size=(rank, cols)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = random.normal(size=(rows, rank)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = [module.rpartition(".")[2] for module in _SHAPES]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank}
    config |= {"target_modules": sorted(targets), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
