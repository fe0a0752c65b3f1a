"""Adapters to commit, and the base that they are compared with: headers only, no weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from speed.adapters import LLAMA, SMOLLM, write_adapter

from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest, sha256_of

LARGE_LAYERS = 26
"""Layers of Llama-3.1-8B's shapes whose adapter of rank 16 in bf16 has 65 MiB."""


def large(directory: Path) -> tuple[Path, BaseRecord]:
    """An adapter of 65 MiB and its base."""
    adapter = write_adapter(directory / "large", LLAMA, LARGE_LAYERS, 16, seed=0, dtype="bfloat16")
    return adapter, write_base(directory / "llama", "llama", LLAMA, LARGE_LAYERS)


def small(directory: Path, count: int) -> tuple[list[Path], BaseRecord]:
    """Adapters of 1.2, 2.3, 4.7 and 9.3 MiB, all with other bytes, and their base SmolLM2-135M."""
    adapters = [
        write_adapter(directory / f"small-{i}", SMOLLM, 30, 2 ** (i % 4), seed=i)
        for i in range(count)
    ]
    return adapters, write_base(directory / "smollm", "smollm2", SMOLLM, 30)


def write_base(
    directory: Path, name: str, layer: dict[str, tuple[int, int]], layers: int
) -> BaseRecord:
    """A base as the gates read it: configuration, and a safetensors file that is a hole."""
    header: dict[str, Any] = {}
    end = 0
    for index in range(layers):
        for module, (m, n) in layer.items():
            start, end = end, end + 2 * m * n
            offsets = [start, end]
            tensor = {"dtype": "BF16", "shape": [m, n], "data_offsets": offsets}
            header[f"model.layers.{index}.{module}.weight"] = tensor
    text = json.dumps(header).encode()
    directory.mkdir(parents=True)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (directory / "config.json").write_text(json.dumps(config))
    digests = {part: sha256_of(f"{name} {part}".encode()) for part in BaseDigests.model_fields}
    return BaseRecord(
        name=name,
        source=str(directory),
        path=str(directory),
        digests=BaseDigests(**digests),
        architecture="LlamaForCausalLM",
        parameters=end // 2,
        dtype="BF16",
        created="2026-01-01T00:00:00Z",
    )


def manifest(name: str, base: BaseRecord) -> Manifest:
    """What a commit of an adapter of `base` is given."""
    link = BaseLink(status="recorded", name=base.name, digests=base.digests)
    return Manifest(name=name, method="lora", made_by="train", base=link)
