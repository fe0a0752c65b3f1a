"""LoRA-XS: r * r numbers a layer between singular vectors of its weight (arXiv:2405.17604).

W + U_r S_r R V_r^T, in which only R is trained. It is stored as the plain LoRA that it is, so that
PEFT and vLLM open it: b = U_r S_r, a = R V_r^T.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn

from adapterhub import AdzError
from adz_lora_xs.lora_xs_options import LoraXsOptions

_PREFIX = "base_model.model."


class LoraXs:
    """A `protocols.Method`."""

    def attach(self, model: Any, options: LoraXsOptions, *, prepared: bool) -> Any:
        """Put a layer with its R around each target; R begins at 0, so the base answers first."""
        output = model.get_output_embeddings()
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not output
        }
        ends = {name.rpartition(".")[2] for name in layers}
        for target in options.targets or ():
            if target not in ends:
                raise AdzError(
                    f"method.targets: {target!r} matches no linear layer",
                    "there are " + ", ".join(sorted(ends)),
                )
        model.requires_grad_(False)
        for name, layer in layers.items():
            if options.targets is None or name.rpartition(".")[2] in options.targets:
                model.set_submodule(name, XsLinear(layer, options.r))
        return model

    def save(self, model: Any, directory: Path) -> None:
        """Write a plain LoRA of rank r and alpha r."""
        directory.mkdir(parents=True, exist_ok=True)
        layers = {n: m for n, m in model.named_modules() if isinstance(m, XsLinear)}
        tensors = {}
        for name, layer in layers.items():
            tensors[f"{_PREFIX}{name}.lora_A.weight"] = layer.right().detach().cpu().contiguous()
            tensors[f"{_PREFIX}{name}.lora_B.weight"] = layer.left.detach().cpu().contiguous()
        save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        rank = max(layer.core.shape[0] for layer in layers.values())
        settings = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": model.name_or_path,
            "r": rank,
            "lora_alpha": rank,
            "bias": "none",
            "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
            "inference_mode": True,
        }
        text = json.dumps(settings, indent=2, sort_keys=True)
        (directory / "adapter_config.json").write_text(text + "\n", encoding="utf-8")

    def load(self, model: Any, directory: Path) -> Any:
        """As PEFT does."""
        return PeftModel.from_pretrained(model, str(directory), local_files_only=True)


class XsLinear(nn.Module):
    """A linear layer and its core R, (r, r) float32."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        if rank > min(layer.weight.shape):
            raise AdzError(
                f"method.r: {rank} is more than a layer of {tuple(layer.weight.shape)} has",
                f"give at most {min(layer.weight.shape)}",
            )
        u, s, v = torch.linalg.svd(layer.weight.detach().float(), full_matrices=False)
        self.layer = layer
        self.register_buffer("left", u[:, :rank] * s[:rank], persistent=False)
        self.register_buffer("vectors", v[:rank].clone(), persistent=False)
        self.core = nn.Parameter(torch.zeros(rank, rank, device=layer.weight.device))

    def right(self) -> torch.Tensor:
        """(r, inputs): R V_r^T."""
        return self.core @ self.vectors  # type: ignore[operator, no-any-return]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (..., outputs), computed as PEFT computes a LoRA."""
        update = nn.functional.linear(inputs.to(self.core.dtype), self.right())
        base: torch.Tensor = self.layer(inputs)
        return base + nn.functional.linear(update, self.left).to(base.dtype)  # type: ignore[arg-type]
