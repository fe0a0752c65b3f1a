"""Tiny base models without torch, and a registry in the home of the test."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterhub.plugins import open_registry
from adapterhub.protocols import Registry


@pytest.fixture
def registry(home: Path) -> Registry:
    return open_registry()


@pytest.fixture
def make_base(tmp_path: Path) -> Callable[..., Path]:
    """A directory with one weight, a configuration, a tokenizer and a chat template; `seed`
    differs the weight's values, `config` adds to the configuration."""

    def make(folder: str = "base", *, seed: int = 0, **config: Any) -> Path:
        directory = tmp_path / folder
        directory.mkdir(parents=True)
        weight = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
        save_file({"model.layers.0.q_proj.weight": weight}, directory / "model.safetensors")
        values = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4, **config}
        (directory / "config.json").write_text(json.dumps(values))
        (directory / "tokenizer.json").write_text('{"model": {}}')
        (directory / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
        return directory

    return make


@pytest.fixture
def write_raw(tmp_path: Path) -> Callable[..., Path]:
    """A file with any header (an object, text or bytes) and any bytes behind it."""

    def write(header: Any, data: bytes = b"", length: int | None = None) -> Path:
        raw = (
            header
            if isinstance(header, bytes)
            else (header if isinstance(header, str) else json.dumps(header)).encode()
        )
        path = tmp_path / "raw.safetensors"
        path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
        return path

    return write
