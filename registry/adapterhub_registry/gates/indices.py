"""Tensors of whole numbers: which elements of a weight a sparse method trains.

PEFT hands SHiRA's to torch as they are, and torch does not look whether they lie within the
weight: a stranger would choose places in memory. So each is compared with its module's shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import AdapterKey, BaseModules

Problem = tuple[str, str]

SPARSE_TYPES = frozenset({"SHIRA", "SUPERTUNING"})

# The type as numpy calls it, and what the parameter counts: rows and columns, or elements.
_TYPES = {"I32": "<i4", "I64": "<i8"}
_PAIRS, _FLAT = "shira_indices", "supertuning_indices"
_CHUNK = 2**18


def is_index(name: str, info: TensorInfo) -> bool:
    """Whether a tensor holds indices that can be checked. FRoD's belong to no module."""
    return info.dtype in _TYPES and name.endswith((f".{_PAIRS}", f".{_FLAT}"))


def check_indices(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    keys: Mapping[str, AdapterKey],
    modules: BaseModules | None,
) -> Problem | None:
    """The first index tensor that points outside of its weight; None when none does. Without
    a base only the sign is checked."""
    for name, info in tensors.items():
        if not is_index(name, info):
            continue
        shape = modules.weight_shape(keys[name].module) if modules else None
        if modules is not None and shape is None:
            return f"tensor {name} cannot be checked: the base's weight has no plain shape", ""
        limits = _limits(name, info, shape)
        if limits is None:
            return f"tensor {name} has the shape {info.shape}, which no indices have", ""
        for row, limit in enumerate(limits):
            low, high = _extremes(path, info, row, len(limits))
            if low < 0 or (limit is not None and high >= limit):
                found = low if low < 0 else high
                return f"tensor {name} points outside of its weight: {found}", "do not use it"
    return None


def _limits(name: str, info: TensorInfo, shape: tuple[int, ...] | None) -> list[int | None] | None:
    """What each row of indices must stay below; None for a shape that is not right."""
    if name.endswith(f".{_FLAT}"):
        if len(info.shape) != 1:
            return None
        return [None] if shape is None else [math.prod(shape)]
    if len(info.shape) != 2 or info.shape[0] != 2 or (shape is not None and len(shape) != 2):
        return None
    return [None, None] if shape is None else list(shape)


def _extremes(path: Path, info: TensorInfo, row: int, rows: int) -> tuple[int, int]:
    """The least and the largest number of one row of a tensor; (0, -1) where it is empty."""
    # Imported late: `adz ls` must not pay for it.
    import numpy as np

    kind = np.dtype(_TYPES[info.dtype])
    length = info.elements // rows
    start = info.start + row * length * kind.itemsize
    low, high = 0, -1
    for done in range(0, length, _CHUNK):
        values = np.fromfile(
            path, kind, min(_CHUNK, length - done), offset=start + done * kind.itemsize
        )
        low, high = min(low, int(values.min())), max(high, int(values.max()))
    return low, high
