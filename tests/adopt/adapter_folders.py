"""Adapter directories, a base, and the hub's cache, as they lie on a machine."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

P = "base_model.model."
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shape:
    """A base's modules: name -> (outputs, inputs)."""

    hidden: int
    inner: int
    layers: int
    keys: int

    def modules(self) -> dict[str, tuple[int, int]]:
        h, i, k = self.hidden, self.inner, self.keys
        parts = {
            "self_attn.q_proj": (h, h), "self_attn.k_proj": (k, h), "self_attn.v_proj": (k, h),
            "self_attn.o_proj": (h, h), "mlp.gate_proj": (i, h), "mlp.up_proj": (i, h),
            "mlp.down_proj": (h, i),
        }  # fmt: skip
        return {
            f"model.layers.{layer}.{name}": shape
            for layer in range(self.layers)
            for name, shape in parts.items()
        }


TINY = Shape(64, 128, 2, 32)
"""As `adapterhub.testing.write_tiny_base` writes it."""
WIDE = Shape(384, 1024, 8, 192)
"""Lies in the hub's cache and is not known to the registry."""
ELSEWHERE = Shape(80, 160, 2, 40)
"""Nobody has this base."""


def lora(shape: Shape, seed: int, rank: int = 8, scale: float = 0.02) -> Tensors:
    """Random factors for every module of a base."""
    values = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (outputs, inputs) in shape.modules().items():
        a = values.standard_normal((rank, inputs), dtype=np.float32)
        b = values.standard_normal((outputs, rank), dtype=np.float32)
        tensors[f"{P}{module}.lora_A.weight"] = scale * a
        tensors[f"{P}{module}.lora_B.weight"] = scale * b
    return tensors


def config(hint: str | None = "org/tiny-llama", rank: int = 8, **options: Any) -> dict[str, Any]:
    """A LoRA's configuration as PEFT writes it."""
    return {
        "base_model_name_or_path": hint, "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "peft_type": "LORA",
        "peft_version": "0.21.2", "r": rank, "task_type": "CAUSAL_LM",
        "target_modules": [
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
        **options,
    }  # fmt: skip


def write(
    directory: Path, tensors: Tensors, settings: dict[str, Any] | str, **metadata: str
) -> Path:
    """One adapter directory."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt", **metadata})
    text = settings if isinstance(settings, str) else json.dumps(settings, indent=2)
    (directory / "adapter_config.json").write_text(text)
    return directory


@dataclass
class Machine:
    """What lies where, and what is wrong with it. expected: faults without notes; notes: those
    that do not stop an import; bases: the base of what is clean."""

    root: Path
    cache: Path
    expected: dict[Path, list[str]] = field(default_factory=dict)
    notes: dict[Path, list[str]] = field(default_factory=dict)
    bases: dict[Path, str] = field(default_factory=dict)
    seed: int = 0

    def add(
        self, directory: Path, *faults: str, notes: tuple[str, ...] = (), base: str = "tiny"
    ) -> Path:
        self.expected[directory] = sorted(faults)
        self.notes[directory] = sorted(notes)
        if not faults:
            self.bases[directory] = base
        return directory

    def next_seed(self) -> int:
        self.seed += 1
        return self.seed


def snapshot(cache: Path, name: str, revision: str) -> Path:
    return cache / f"models--{name.replace('/', '--')}" / "snapshots" / revision


def cached(folder: Path) -> Path:
    """Move the files into the repository's blobs and leave links, as huggingface_hub does."""
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir(exist_ok=True)
    for file in sorted(folder.iterdir()):
        blob = blobs / f"{len(list(blobs.iterdir())):040x}"
        file.rename(blob)
        file.symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return folder


def put_wide_base(machine: Machine, tiny: Path) -> None:
    """A base in the cache that the registry does not know, with the tiny one's tokenizer."""
    folder = snapshot(machine.cache, "acme/wide-llama", "12" * 20)
    folder.mkdir(parents=True)
    values = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": values.standard_normal(shape, np.float32)
        for name, shape in WIDE.modules().items()
    }
    for name in ("model.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = values.standard_normal((320, WIDE.hidden), np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((tiny / "config.json").read_text())
    settings |= {
        "hidden_size": WIDE.hidden, "intermediate_size": WIDE.inner,
        "num_hidden_layers": WIDE.layers, "num_attention_heads": 8, "num_key_value_heads": 4,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny / name, folder / name)
    cached(folder)
