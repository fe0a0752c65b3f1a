"""Random adapters of the shapes of real models; their spectra decay, as training leaves them."""

from __future__ import annotations

import json
from pathlib import Path

SMOLLM = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}
"""SmolLM2-135M's linear layers as (m, n); the model has 30 of each."""

LLAMA = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
"""Llama-3.1-8B's, of which the model has 32 each."""

ATTENTION = {name: shape for name, shape in LLAMA.items() if name.startswith("self_attn")}


def write_adapter(
    directory: Path,
    layer: dict[str, tuple[int, int]],
    layers: int,
    rank: int,
    *,
    seed: int,
    dtype: str = "float32",
    gain: float = 1.0,
) -> Path:
    """A PEFT directory; one that is there already is left as it is. `gain` multiplies B."""
    import torch
    from safetensors.torch import save_file

    if directory.exists():
        return directory
    generator = torch.Generator().manual_seed(seed)
    decay = 0.8 ** torch.arange(rank)
    tensors = {}
    for index in range(layers):
        for name, (m, n) in layer.items():
            prefix = f"base_model.model.model.layers.{index}.{name}"
            a = torch.randn(rank, n, generator=generator) * decay[:, None]
            b = torch.randn(m, rank, generator=generator) * gain
            tensors[f"{prefix}.lora_A.weight"] = a.to(getattr(torch, dtype))
            tensors[f"{prefix}.lora_B.weight"] = b.to(getattr(torch, dtype))
    directory.mkdir(parents=True)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 16,
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in layer}),
        "task_type": "CAUSAL_LM",
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
