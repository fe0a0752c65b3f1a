"""Ways to spoil a sound payload: a LoRA of one module, rank 2 on an 8 x 8 weight."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"

Spoil = Callable[[Path], object]


def config(**changes: Any) -> Spoil:
    def spoil(directory: Path) -> None:
        path = directory / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def config_text(text: str) -> Spoil:
    return lambda directory: (directory / CONFIG).write_text(text)


def alpha_text(number: str) -> Spoil:
    def spoil(directory: Path) -> None:
        path = directory / CONFIG
        path.write_text(path.read_text().replace('"lora_alpha": 4', f'"lora_alpha": {number}'))

    return spoil


def tensors(**changes: Any) -> Spoil:
    """Replace A or B, or add tensors by their whole name (with `_` for the name: a dict)."""

    def spoil(directory: Path) -> None:
        path = directory / WEIGHTS
        values = load_file(path)
        names = {"A": A, "B": B}
        values |= {names[name]: value for name, value in changes.items() if name in names}
        values |= changes.get("more", {})
        save_file({n: v for n, v in values.items() if v is not None}, path)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda directory: [spoil(directory) for spoil in spoils]


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def filled(shape: tuple[int, ...], value: float) -> np.ndarray:
    array = floats(*shape)
    array.flat[-1] = value
    return array


def header(value: dict[str, Any] | bytes, body: int = 0, length: int | None = None) -> Spoil:
    """A weights file with any header."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    prefix = struct.pack("<Q", len(raw) if length is None else length)
    return lambda directory: (directory / WEIGHTS).write_bytes(prefix + raw + bytes(body))


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def link(name: str, target: str) -> Spoil:
    def spoil(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(target)

    return spoil


def archive(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    with zipfile.ZipFile(directory / "adapter.zip", "w") as file:
        file.writestr("../../escape", b"x")


def only_pickle(directory: Path) -> None:
    (directory / WEIGHTS).rename(directory / "adapter_model.bin")


def fifo(directory: Path) -> None:
    (directory / CONFIG).unlink()
    os.mkfifo(directory / CONFIG)
