"""Writing the merged adapter: a PEFT directory, tensor by tensor, the same bytes each time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.bases.modules import PREFIX
from adapterhub.errors import AdzError
from adapterhub.merge.lora import LoraAdapter
from adapterhub.protocols import MergedModule
from adapterhub.staging import staging_folder


class AdapterWriter:
    """A safetensors file whose shapes are known before its values, in float32.

    Every module has its place from the start, so that modules are written as they come, from
    any thread, and none is kept in memory.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, int]],
        rank: int,
        embeddings: Set[str] = frozenset(),
    ) -> None:
        self._rank = rank
        self._embeddings = embeddings
        self._offsets: dict[str, int] = {}
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for module, (m, n) in sorted(shapes.items()):
            for factor, shape in (("A", [rank, n]), ("B", [m, rank])):
                name = self._key(module, factor)
                end = offset + 4 * shape[0] * shape[1]
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
                self._offsets[name] = offset
                offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.truncate(self._file, self._start + offset)
        self._write(len(text).to_bytes(8, "little") + text, 0)

    def write(self, module: str, merged: MergedModule) -> None:
        """Store a module; factors of a smaller rank are filled up with zeros."""
        missing = self._rank - merged.a.shape[0]
        a = torch.nn.functional.pad(merged.a, (0, 0, 0, missing))
        b = torch.nn.functional.pad(merged.b, (0, missing))
        for factor, tensor in (("A", a), ("B", b)):
            offset = self._start + self._offsets[self._key(module, factor)]
            self._write(tensor.contiguous().numpy().tobytes(), offset)

    def close(self) -> None:
        """Close the file, once what was written is on the disk."""
        os.fsync(self._file)
        os.close(self._file)

    def _key(self, module: str, factor: str) -> str:
        if module in self._embeddings:
            return f"{PREFIX}{module}.lora_embedding_{factor}"
        return f"{PREFIX}{module}.lora_{factor}.weight"

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self._file, view, offset)
            except OSError as error:
                error.filename = str(self._path)
                raise
            view, offset = view[written:], offset + written


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """A folder beside `directory` that takes its name when the block ends well, or vanishes."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise AdzError(f"{directory} exists already", "give another --out")
    with staging_folder(directory.parent, f".{directory.name}.adz-") as folder:
        made = folder / "merge"
        made.mkdir()
        yield made
        made.rename(directory)


@contextmanager
def adapter_writer(
    directory: Path,
    shapes: Mapping[str, tuple[int, int]],
    rank: int,
    embeddings: Set[str] = frozenset(),
) -> Iterator[AdapterWriter]:
    """The writer of the directory's weights. embeddings: modules whose factors PEFT names so."""
    writer = AdapterWriter(directory / WEIGHTS, shapes, rank, embeddings)
    try:
        yield writer
    finally:
        writer.close()


def write_config(directory: Path, adapters: Sequence[LoraAdapter], rank: int) -> None:
    """adapter_config.json with sorted keys, without paths or times. alpha = r: the scale is 1."""
    config = {
        "base_model_name_or_path": _shared(adapters, "base_model_name_or_path"),
        "bias": "none",
        "fan_in_fan_out": bool(adapters[0].config.get("fan_in_fan_out")),
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": target_modules(adapters),
        "task_type": _shared(adapters, "task_type"),
        "use_dora": False,
        "use_rslora": False,
    }
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (directory / CONFIG).write_text(text, encoding="utf-8")


def target_modules(adapters: Sequence[LoraAdapter]) -> list[str]:
    """What PEFT must target on the same base to find all modules and no others.

    The adapters' own suffixes where each matched all that it could; else every full name.
    """
    suffixes: set[str] = set()
    for adapter in adapters:
        targets = adapter.config.get("target_modules")
        limited = any(
            adapter.config.get(key) is not None for key in ("layers_to_transform", "layers_pattern")
        )
        if not isinstance(targets, list) or limited or adapter.config.get("exclude_modules"):
            return sorted({module for adapter in adapters for module in adapter.modules})
        suffixes.update(targets)
    return sorted(suffixes)


def _shared(adapters: Sequence[LoraAdapter], key: str) -> str | None:
    values = {adapter.config.get(key) for adapter in adapters}
    value = values.pop() if len(values) == 1 else None
    # A path would differ from machine to machine.
    is_path = isinstance(value, str) and (value.startswith((".", "~")) or Path(value).is_absolute())
    return None if is_path else value
