"""The stored base, one tensor at a time; packed weights are unpacked while they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from adapterhub.bases.digests import read_config, weight_files
from adapterhub.bases.headers import BASE, TensorInfo, read_header
from adapterhub.bases.tensors import TORCH_DTYPES, read_tensor, stored_bytes
from adapterhub.errors import AdzError
from adapterhub.export.quantised import Packing, find_packing
from adapterhub.manifest import BaseRecord

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class StoredBase:
    """A base's tensors by the names of the loaded model's parameters.

    shards: the names in each file. shapes: as the model has them, whatever is stored.
    packing: how weights are packed, where the base is stored quantised. dtype: the commonest
    of its floating-point tensors. tied: tensors that are one with another, such as the head, and
    with which.
    """

    def __init__(self, record: BaseRecord) -> None:
        self.record = record
        self.directory = Path(record.path)
        self.config = read_config(self.directory)
        self.packing: Packing | None = find_packing(record, self.config)
        architecture = _architecture(record)
        self._heads: dict[str, str] = dict(getattr(architecture, "_tied_weights_keys", None) or {})
        self.tied = self._heads if self.config.get("tie_word_embeddings") else {}
        self._root = str(getattr(architecture, "base_model_prefix", ""))
        self._prefix = ""
        self._places: dict[str, tuple[Path, str, TensorInfo]] = {}
        self.shards = list(self._read_headers())
        self.shapes = {name: self._shape(name) for shard in self.shards for name in shard}
        self.dtype = self._commonest_dtype()

    def read(self, name: str) -> torch.Tensor:
        """The tensor as it is stored, or unpacked in float32."""
        file, stored, info = self._places[name]
        if self.packing and self.packing.packs(stored, self._stored):
            return self.packing.unpack(stored, self._read_stored)
        return read_tensor(file, info)

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """The dtype of a tensor that is stored as it is; None where it is packed."""
        _, stored, info = self._places[name]
        if self.packing and self.packing.packs(stored, self._stored):
            return None
        return TORCH_DTYPES.get(info.dtype)

    def raw(self, name: str) -> Iterator[bytes]:
        """The stored bytes of a tensor that is not packed."""
        file, _, info = self._places[name]
        return stored_bytes(file, info)

    def _read_headers(self) -> Iterator[tuple[str, ...]]:
        files = weight_files(self.directory)
        headers = {file: read_header(file, BASE) for file in files}
        self._stored = {
            name: (file, info) for file in files for name, info in headers[file].items()
        }
        # A file that was saved from the inner model lacks the name of the outer one.
        if self._root and not any(name.startswith(f"{self._root}.") for name in self._stored):
            self._prefix = f"{self._root}."
        for file in files:
            names = []
            for stored, info in headers[file].items():
                if self.packing and self.packing.is_part(stored, self._stored):
                    continue
                name = self._name(stored)
                self._places[name] = (file, stored, info)
                names.append(name)
            yield tuple(names)

    def _name(self, stored: str) -> str:
        return stored if stored in self._heads else self._prefix + stored

    def _read_stored(self, stored: str) -> torch.Tensor:
        return read_tensor(*self._stored[stored])

    def _shape(self, name: str) -> tuple[int, ...]:
        _, stored, info = self._places[name]
        if self.packing and self.packing.packs(stored, self._stored):
            return self.packing.shape(stored, info, self._read_stored)
        return info.shape

    def _commonest_dtype(self) -> torch.dtype:
        sizes = dict.fromkeys(FLOATS, 0)
        for name, shape in self.shapes.items():
            dtype = self.stored_dtype(name)
            if dtype in sizes:
                sizes[dtype] += torch.Size(shape).numel()
        dtype = max(sizes, key=lambda dtype: sizes[dtype])
        if not sizes[dtype]:
            raise AdzError(
                f"the base {self.record.name} holds no floating-point weights",
                "fold into a base in plain floats",
            )
        return dtype


def _architecture(record: BaseRecord) -> Any:
    import transformers

    found = getattr(transformers, record.architecture, None)
    if found is None:
        raise AdzError(
            f"transformers {transformers.__version__} does not know {record.architecture}",
            "upgrade transformers",
        )
    return found
