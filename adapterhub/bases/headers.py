"""Reading safetensors headers strictly, without torch or safetensors.

A header is untrusted input: it is bounded before it is read and checked before any tensor is.
Whatever is accepted here, safetensors accepts too; the reverse does not hold (it accepts
duplicate keys and names like `../x`).
"""

from __future__ import annotations

import functools
import math
import operator
import re
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from adapterhub.bases.strict_json import parse_object
from adapterhub.errors import EXIT_VERIFICATION, AdzError

# Bits of an element, from safetensors' Dtype.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
_METADATA = "__metadata__"
# Bytes of a header that is remembered; 400 tensors have 50,000.
_REMEMBERED = 2**18


@dataclass(frozen=True, slots=True)
class Limits:
    """What a header may be at most: its bytes, its tensors, the dimensions of one tensor."""

    size: int
    tensors: int
    dimensions: int


ADAPTER = Limits(size=8 * 2**20, tensors=65_536, dimensions=4)
# 100 MB is what safetensors itself reads.
BASE = Limits(size=100_000_000, tensors=1_000_000, dimensions=8)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its dtype as safetensors writes it, its shape, and its bytes [start, end),
    counted from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)


def read_header(path: Path, limits: Limits = ADAPTER) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name, in the order of the file.

    Raises AdzError (exit code 3) with the file and the rule for whatever is not exactly right.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _refuse(path, f"it is truncated: {size} bytes")
        length = int.from_bytes(prefix, "little")
        if length > limits.size:
            raise _refuse(path, f"its header claims {length} bytes, at most {limits.size} are read")
        if 8 + length > size:
            raise _refuse(path, f"it is truncated: {size} bytes, the header alone has {8 + length}")
        raw = file.read(length)
    parse = _parse_again if length <= _REMEMBERED else _parse
    try:
        return dict(parse(raw, size, limits))
    except ValueError as error:
        raise _refuse(path, str(error)) from error


def _refuse(path: Path, reason: str) -> AdzError:
    return AdzError(
        f"{path.name} is not a valid safetensors file: {reason}",
        "fetch or save it again",
        exit_code=EXIT_VERIFICATION,
    )


def _parse(raw: bytes, size: int, limits: Limits) -> dict[str, TensorInfo]:
    """The tensors of the header `raw` in a file of `size` bytes; ValueError with the rule."""
    if not raw.startswith(b"{"):
        raise ValueError("its header is not a JSON object")
    try:
        entries = parse_object(raw, parse_int=_natural)
    except ValueError as error:
        raise ValueError(f"its header: {str(error)[:200]}") from error
    _check_metadata(entries.pop(_METADATA, {}))
    if len(entries) > limits.tensors:
        raise ValueError(f"it has {len(entries)} tensors, at most {limits.tensors} are read")
    begin = 8 + len(raw)
    tensors = {name: _tensor(name, entry, begin, limits) for name, entry in entries.items()}
    _check_layout(tensors, begin, size)
    return tensors


# Adapters of one base and one rank have the same header, to the byte.
_parse_again = functools.lru_cache(maxsize=16)(_parse)


def _natural(text: str) -> int:
    if text.startswith("-") or len(text) > 19:
        raise ValueError(f"the number {text[:20]} is out of range")
    return int(text)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata is not a mapping of text to text")
    try:
        for key, value in metadata.items():
            (key + value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("its metadata is not Unicode text") from error


def _tensor(name: str, entry: Any, begin: int, limits: Limits) -> TensorInfo:
    if not _NAME.fullmatch(name):
        raise ValueError(f"the tensor name {name[:80]!r} has characters beside A-Za-z0-9_.-")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name}: not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"tensor {name}: unknown dtype {str(dtype)[:40]!r}")
    if not _is_naturals(shape) or not _is_naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name}: shape or data_offsets are not natural numbers")
    if len(shape) > limits.dimensions:
        raise ValueError(f"tensor {name}: {len(shape)} dimensions, at most {limits.dimensions}")
    info = TensorInfo(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])
    # safetensors counts in 64 bits, one dimension after the other: a 0 behind saves nothing.
    # The first test is for speed: so few bits a dimension cannot overflow.
    if max(shape, default=0) >= 2 ** (60 // limits.dimensions) and any(
        size >= 2**61 for size in accumulate(shape, operator.mul)
    ):
        raise ValueError(f"tensor {name}: the shape {shape} overflows")
    if info.elements * DTYPE_BITS[dtype] != 8 * (info.end - info.start):
        raise ValueError(f"tensor {name}: {dtype} {shape} does not fill bytes {offsets}")
    return info


def _is_naturals(value: Any) -> bool:
    # bool is an int to Python, but not to JSON.
    return isinstance(value, list) and {int}.issuperset(map(type, value))


def _check_layout(tensors: dict[str, TensorInfo], begin: int, size: int) -> None:
    """Every byte behind the header belongs to exactly one tensor."""
    position = begin
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            raise ValueError(f"tensor {name} begins at byte {info.start}, expected {position}")
        position = info.end
    if position > size:
        raise ValueError(f"it is truncated: {size} bytes, its tensors need {position}")
    if position < size:
        raise ValueError(f"{size - position} bytes behind its last tensor")
