"""Random LoRA directories without PEFT, and what they mean in float64, worked out separately."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

Q, K, UP = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.mlp.up_proj"
SHAPES = {Q: (24, 24), K: (12, 24), UP: (40, 24)}


@dataclass(frozen=True)
class Lora:
    """A directory and its float64 updates, with the scale that the test asked for."""

    path: Path
    deltas: dict[str, np.ndarray]


class MakeLora:
    """Writes adapters: `scale` is what alpha and rank must come to, given by the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self,
        name: str,
        *,
        rank: int = 4,
        scale: float = 2.0,
        seed: int = 0,
        shapes: Mapping[str, tuple[int, int]] = SHAPES,
        dtype: torch.dtype = torch.float32,
        ranks: Mapping[str, int] | None = None,
        scales: Mapping[str, float] | None = None,
        **config: Any,
    ) -> Lora:
        generator = torch.Generator().manual_seed(seed)
        tensors, deltas = {}, {}
        for module, (m, n) in shapes.items():
            r = (ranks or {}).get(module, rank)
            a = torch.randn(r, n, generator=generator).to(dtype)
            b = torch.randn(m, r, generator=generator).to(dtype)
            tensors[f"base_model.model.{module}.lora_A.weight"] = a
            tensors[f"base_model.model.{module}.lora_B.weight"] = b
            product = b.double().numpy() @ a.double().numpy()
            deltas[module] = (scales or {}).get(module, scale) * product
        path = self._folder / name
        path.mkdir()
        save_file(tensors, path / "adapter_model.safetensors")
        values = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": scale * rank,
            "target_modules": sorted({module.rsplit(".", 1)[-1] for module in shapes}),
            "task_type": "CAUSAL_LM",
            **config,
        }
        (path / "adapter_config.json").write_text(json.dumps(values))
        return Lora(path, deltas)


@pytest.fixture
def make_lora(tmp_path: Path) -> MakeLora:
    folder = tmp_path / "adapters"
    folder.mkdir()
    return MakeLora(folder)


def read_deltas(directory: Path) -> dict[str, np.ndarray]:
    """The float64 updates of a merged directory, whose alpha is r."""
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"]
    tensors = load_file(directory / "adapter_model.safetensors")
    end = ".lora_A.weight"
    return {
        key.removeprefix("base_model.model.").removesuffix(end): (
            tensors[key.removesuffix(end) + ".lora_B.weight"].double() @ tensors[key].double()
        ).numpy()
        for key in tensors
        if key.endswith(end)
    }


class SilentProgress:
    """A `protocols.Progress` that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextmanager
    def task(self, description: str, total: float | None):
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        pass

    def note(self, message: str) -> None:
        self.notes.append(message)

    warn = note


@pytest.fixture
def run_merge(home: Path, tmp_path: Path) -> Callable[..., Any]:
    """Merge directories into a new directory; returns the result, whose `directory` is set."""
    from adapterhub.merge.pipeline import merge
    from adapterhub.merge.recipe import MergeRecipe
    from adapterhub.plugins import open_registry

    counter = iter(range(1000))

    def run(*loras: Lora | Path, **options: Any) -> Any:
        paths = [str(getattr(lora, "path", lora)) for lora in loras]
        out = tmp_path / f"merged-{next(counter)}"
        recipe = MergeRecipe.model_validate({"adapters": paths, "out": out, **options})
        return merge(recipe, open_registry(), SilentProgress())

    return run
