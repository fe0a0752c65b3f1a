"""Single tensors from and to safetensors files, by plain reads and writes.

A file that is mapped into memory counts as memory of the process; what is read here is as
large as one tensor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import AdzError

TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
"""torch's dtypes by the names that safetensors gives them."""

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_CHUNK = 2**24


def read_tensor(file: Path, info: TensorInfo) -> torch.Tensor:
    """One tensor of a safetensors file, as it is stored. Raises AdzError for a dtype that
    torch does not compute in."""
    dtype = TORCH_DTYPES.get(info.dtype)
    if dtype is None:
        raise AdzError(f"{file.name} holds tensors of {info.dtype}", "use a base in plain floats")
    data = torch.empty(info.end - info.start, dtype=torch.uint8)
    view: Any = data.numpy()
    left, start = memoryview(view), info.start
    # A merge reads thousands of small tensors: a file object for each costs as much again.
    opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while left:
            read = os.preadv(opened, [left], start)
            if not read:
                raise AdzError(f"{file} is truncated", "fetch the base again")
            left, start = left[read:], start + read
    finally:
        os.close(opened)
    return data.view(dtype).reshape(info.shape)


def stored_bytes(file: Path, info: TensorInfo) -> Iterator[bytes]:
    """The tensor's bytes as they are stored, in pieces."""
    with file.open("rb") as opened:
        opened.seek(info.start)
        left = info.end - info.start
        while left:
            piece = opened.read(min(left, _CHUNK))
            if not piece:
                raise AdzError(f"{file} is truncated", "fetch the base again")
            left -= len(piece)
            yield piece


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes that safetensors stores of a tensor."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


class TensorWriter:
    """A new safetensors file whose names, dtypes and shapes are known before its values.

    The tensors are written one after the other, in the order of `tensors`.
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    ) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, (dtype, shape) in tensors.items():
            end = offset + dtype.itemsize * torch.Size(shape).numel()
            header[name] = {
                "dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]
            }  # fmt: skip
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.size = 8 + len(text) + offset
        self._file = path.open("xb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, pieces: Iterable[bytes]) -> None:
        """The next tensor's bytes."""
        for piece in pieces:
            self._file.write(piece)

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close the file, once what was written is on the disk."""
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                if self._file.tell() != self.size:
                    raise ValueError(f"{self._file.tell()} bytes written, {self.size} announced")
