"""Tiny payloads without torch, and a registry in the home of the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.bases.digests import compute_digests
from adapterhub.manifest import BaseLink, BaseRecord, Manifest
from adapterhub.plugins import load_plugins
from adapterhub_registry.store import LocalRegistry

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def registry(home: Path) -> LocalRegistry:
    return LocalRegistry(home)


@pytest.fixture
def make_payload(tmp_path: Path) -> Callable[..., Path]:
    """A LoRA of one module as PEFT saves it: A is (2, 8), B is (8, 2); `seed` differs the bytes."""

    def make(seed: int = 0) -> Path:
        directory = tmp_path / f"payload-{seed}"
        if not directory.exists():
            directory.mkdir()
            random = np.random.default_rng(seed)
            tensors = {
                f"{MODULE}.lora_A.weight": random.normal(size=(2, 8)).astype(np.float32),
                f"{MODULE}.lora_B.weight": random.normal(size=(8, 2)).astype(np.float32),
            }
            save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
            (directory / "adapter_config.json").write_text(
                '{"bias": "none", "lora_alpha": 4, "peft_type": "LORA", "r": 2,'
                ' "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}'
            )
        return directory

    return make


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    """A manifest of an imported LoRA whose base is unknown, with changes."""

    def make(name: str = "sql", **changes: Any) -> Manifest:
        values = {
            "name": name,
            "method": "lora",
            "made_by": "import",
            "base": BaseLink(status="unknown"),
            "adapter": {"rank": 2, "alpha": 4},
        }
        return Manifest.model_validate(values | changes)

    return make


@pytest.fixture
def commit(
    registry: LocalRegistry,
    make_payload: Callable[..., Path],
    make_manifest: Callable[..., Manifest],
) -> Callable[..., Any]:
    """Commit the payload of `seed` as the next version of `name`."""

    def run(name: str = "sql", seed: int = 0, **changes: Any) -> Any:
        return registry.commit(make_manifest(name, **changes), make_payload(seed))

    return run


@pytest.fixture
def make_base(tmp_path: Path) -> Callable[..., BaseRecord]:
    """The record of a base with the one module that the payloads adapt, and its files."""

    def make(name: str = "llama", seed: int = 0, folder: str = "") -> BaseRecord:
        directory = tmp_path / (folder or f"base-{seed}")
        directory.mkdir(exist_ok=True)
        weight = np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)
        tensors = {"model.layers.0.self_attn.q_proj.weight": weight}
        save_file(tensors, directory / "model.safetensors")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8}
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "tokenizer.json").write_text("{}")
        return BaseRecord(
            name=name,
            source=str(directory),
            path=str(directory),
            digests=compute_digests(directory),
            architecture="LlamaForCausalLM",
            parameters=64,
            dtype="F32",
            created="2026-01-01T00:00:00Z",
        )

    return make


@pytest.fixture
def hook(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Replace the event `adapterhub_before_commit` by a function of the manifest."""

    def install(function: Any) -> None:
        def call_event(name: str, **arguments: Any) -> None:
            assert name == "adapterhub_before_commit"
            function(**arguments)

        monkeypatch.setattr(load_plugins(), "call_event", call_event)

    return install
