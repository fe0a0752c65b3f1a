"""Keys made by openssl, and a registry that holds a version of two names with equal bytes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.manifest import BaseLink, Manifest, Version
from adapterhub.plugins import open_registry

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="session")
def make_key(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """A private and a public key as the documentation says to make them."""

    def make(name: str = "release", curve: str = "prime256v1") -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("keys")
        private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
        command = ["openssl", "ecparam", "-genkey", "-name", curve, "-noout", "-out", private]
        subprocess.run(command, check=True, capture_output=True)
        command = ["openssl", "pkey", "-in", private, "-pubout", "-out", public]
        subprocess.run(command, check=True, capture_output=True)
        return private, public

    return make


@pytest.fixture(scope="session")
def key(make_key: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    return make_key()


@pytest.fixture(scope="session")
def other_key(make_key: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    return make_key("other")


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    directory = tmp_path / "payload"
    directory.mkdir()
    random = np.random.default_rng(0)
    tensors = {
        f"{MODULE}.lora_A.weight": random.normal(size=(2, 8)).astype(np.float32),
        f"{MODULE}.lora_B.weight": random.normal(size=(8, 2)).astype(np.float32),
    }
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps({"bias": "none", **config}))
    return directory


@pytest.fixture
def commit(home: Path, payload: Path) -> Callable[..., Version]:
    """Commit the payload as the next version of a name."""

    def run(name: str = "team/sql", **changes: Any) -> Version:
        values = {"name": name, "method": "lora", "made_by": "train"}
        manifest = Manifest.model_validate(
            {**values, "base": BaseLink(status="unknown"), **changes}
        )
        return open_registry().commit(manifest, payload)

    return run
