"""Single tensors of a safetensors file as numpy arrays: for what works without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import AdzError

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_array(file: Path, info: TensorInfo) -> NDArray[np.float64]:
    """One tensor in float64, with its shape. Raises AdzError for other dtypes than F64, F32,
    F16 and BF16, and for a file that ends too early."""
    if info.dtype not in _FLOATS and info.dtype != "BF16":
        raise AdzError(f"{file} holds tensors of {info.dtype}", "only floats are compared")
    kind = _FLOATS.get(info.dtype, "<u2")
    values: NDArray[Any] = np.fromfile(file, dtype=kind, count=info.elements, offset=info.start)
    if values.size < info.elements:
        raise AdzError(f"{file} is truncated", "run 'adz fsck'")
    if info.dtype == "BF16":
        # numpy has no bfloat16: it is the upper half of a float32.
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64).reshape(info.shape)
