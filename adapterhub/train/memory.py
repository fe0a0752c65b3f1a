"""Memory while training: freed blocks are kept, quantised weights unpacked where there is room."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Any

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 30

ROOM = 4
"""Weights are unpacked where the free memory is so many times what they need."""


def keep_freed_memory() -> None:
    """Let the C library reuse the blocks that a step frees.

    By default it gives large ones back to the kernel, which then has to clear every page of
    the next step's activations anew. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
    mallopt(_M_TRIM_THRESHOLD, _LARGE)


def give_back_freed_memory() -> None:
    """Return what `keep_freed_memory` kept to the kernel, holes between blocks included; what is
    touched again has to be cleared. Without glibc nothing happens."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that this process may still take; on Linux, of a CPU."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages: int = os.sysconf("SC_AVPHYS_PAGES")
    return pages * os.sysconf("SC_PAGE_SIZE")


def has_room(model: torch.nn.Module, dtype: torch.dtype) -> bool:
    """Whether a copy of the model in `dtype` fits beside what is there, and half as much more."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return free_memory(next(model.parameters()).device) > 1.5 * numbers * dtype.itemsize


def dense_weight(layer: Any) -> torch.Tensor | None:
    """The weight of a frozen linear layer as (out, in) floats; None where only the layer itself
    knows it, or where there is no room for it unpacked.

    A quantised weight is unpacked once for a whole run: on a CPU that costs as much as half of
    its product, in every forward and every backward pass.
    """
    weight = layer.weight
    if layer.weight is not weight:
        # Made anew from packed numbers: kept here, it would be held in floats for the whole run.
        return None
    if type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.is_floating_point():
        detached: torch.Tensor = weight.detach()
        return detached
    if type(layer).__name__ != "Linear4bit" or layer.compute_dtype is None:
        return None
    needed = layer.in_features * layer.out_features * layer.compute_dtype.itemsize
    if weight.device.type != "cpu" or free_memory() < ROOM * needed:
        return None
    import bitsandbytes.functional as bnb

    unpacked: torch.Tensor = bnb.dequantize_4bit(weight.data, weight.quant_state)
    return unpacked.to(layer.compute_dtype)
