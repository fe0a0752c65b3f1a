"""Single tensors of a safetensors file as numpy arrays: for what works without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import AdzError

# numpy has no bfloat16: it is the upper half of a float32.
_KINDS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "u1",
}  # fmt: skip


def read_array(file: Path, info: TensorInfo) -> NDArray[np.float64]:
    """One tensor in float64, with its shape. Raises AdzError for a dtype that numpy lacks, other
    than BF16, and for a file that ends too early."""
    if info.dtype not in _KINDS:
        raise AdzError(f"{file} holds tensors of {info.dtype}", "save them as floats")
    kind = _KINDS[info.dtype]
    values: NDArray[Any] = np.fromfile(file, dtype=kind, count=info.elements, offset=info.start)
    if values.size < info.elements:
        raise AdzError(f"{file} is truncated", "fetch or save it again")
    if info.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64).reshape(info.shape)
