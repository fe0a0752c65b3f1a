"""A LoRA layer on a few rows, as one call: machine code by numba, on the threads of PyTorch.

A decode step of a small model has a hundred LoRA layers with a few rows each. PyTorch's products
cost several microseconds apiece before they compute anything, and there are up to four in a
layer; this is one call, which reads each weight once. vLLM brings numba, and no compiler is
needed. Floats of 32 bits only.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import binding
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from adapterhub_vllm.cpu_rows import Few

# Columns that are added to at a time: 16 rows of B then stay in the first cache.
_COLUMNS = 256
# The places in the list of what a call is about; addresses, sizes, then the rows.
_X, _X_STEP, _Y, _Y_STEP, _A, _B, _LOW, _IN, _RANK, _SLICES, _OUT, _GROUPS = range(12)
_SPANS, _ORDER, _OFFSETS, _RANKS, _SLOTS, _PLACES = range(12, 18)


def _openmp() -> ctypes.CDLL:
    """The OpenMP that PyTorch runs on: a second one would fight it for the cores."""
    loaded = ctypes.CDLL(None)
    if hasattr(loaded, "GOMP_parallel"):
        return loaded
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*"))
    if not found:
        raise ImportError("PyTorch has no OpenMP of GNU's interface here")
    return ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)


_library = _openmp()
for _name in ("omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier"):
    _address = ctypes.cast(getattr(_library, _name), ctypes.c_void_p).value
    binding.add_symbol(_name, _address)
_parallel = _library.GOMP_parallel
_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
_parallel.restype = None
_thread = types.ExternalFunction("omp_get_thread_num", types.int32())
_threads = types.ExternalFunction("omp_get_num_threads", types.int32())
_barrier = types.ExternalFunction("GOMP_barrier", types.void())


def _pointer_to(element: Any) -> Any:
    def typed(context: Any, address: Any) -> Any:
        signature = types.CPointer(element)(types.int64)

        def build(target: Any, builder: Any, found: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], target.get_value_type(found.return_type))

        return signature, build

    return intrinsic(typed)


_floats = _pointer_to(types.float32)
_integers = _pointer_to(types.int64)


@njit(fastmath=True)
def _dot(a: Any, x: Any) -> Any:
    total = np.float32(0)
    for i in range(a.size):
        total += a[i] * x[i]
    return total


@njit(fastmath=True)
def _dots(a0: Any, a1: Any, x0: Any, x1: Any, x2: Any, x3: Any) -> Any:
    s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = np.float32(0)
    for i in range(a0.size):
        first, second = a0[i], a1[i]
        s0 += first * x0[i]
        s1 += first * x1[i]
        s2 += first * x2[i]
        s3 += first * x3[i]
        t0 += second * x0[i]
        t1 += second * x1[i]
        t2 += second * x2[i]
        t3 += second * x3[i]
    return s0, s1, s2, s3, t0, t1, t2, t3


@njit(fastmath=True)
def _add_to_one(y: Any, b0: Any, b1: Any, b2: Any, b3: Any, low: Any) -> None:
    l0, l1, l2, l3 = low
    for i in range(y.size):
        y[i] += l0 * b0[i] + l1 * b1[i] + l2 * b2[i] + l3 * b3[i]


@njit(fastmath=True)
def _add_to_two(y: Any, z: Any, b0: Any, b1: Any, b2: Any, b3: Any, low: Any, other: Any) -> None:
    l0, l1, l2, l3 = low
    m0, m1, m2, m3 = other
    for i in range(y.size):
        c0, c1, c2, c3 = b0[i], b1[i], b2[i], b3[i]
        y[i] += l0 * c0 + l1 * c1 + l2 * c2 + l3 * c3
        z[i] += m0 * c0 + m1 * c1 + m2 * c2 + m3 * c3


@njit
def _row(address: Any, row: Any, step: Any, start: Any, count: Any) -> Any:
    return carray(_floats(address + (row * step + start) * 4), (count,))


@njit
def _shrink(q: Any, spans: Any, order: Any, low: Any, part: Any, parts: Any) -> None:
    """low[k, row] = A[k] . x[row] for this thread's share of the k of each group. Lines of A
    above the adapter's own rank are zeros, and skipped."""
    wide = q[_IN]
    ranks = carray(_integers(q[_RANKS]), (q[_SLOTS],))
    for group in range(q[_GROUPS]):
        slot, row, end = spans[group]
        pairs = ranks[slot] * q[_SLICES] // 2
        first, last = pairs * part // parts * 2, pairs * (part + 1) // parts * 2
        while row < end:
            four = row + 4 <= end
            x0 = _row(q[_X], order[row], q[_X_STEP], 0, wide)
            x1 = _row(q[_X], order[row + 1 if four else row], q[_X_STEP], 0, wide)
            x2 = _row(q[_X], order[row + 2 if four else row], q[_X_STEP], 0, wide)
            x3 = _row(q[_X], order[row + 3 if four else row], q[_X_STEP], 0, wide)
            for used in range(first, last, 2):
                k = used // ranks[slot] * q[_RANK] + used % ranks[slot]
                line = slot * q[_RANK] * q[_SLICES] + k
                a0 = _row(q[_A], line, wide, 0, wide)
                a1 = _row(q[_A], line + 1, wide, 0, wide)
                this, following = low[k], low[k + 1]
                if four:
                    s0, s1, s2, s3, t0, t1, t2, t3 = _dots(a0, a1, x0, x1, x2, x3)
                    this[row], this[row + 1], this[row + 2], this[row + 3] = s0, s1, s2, s3
                    following[row], following[row + 1] = t0, t1
                    following[row + 2], following[row + 3] = t2, t3
                else:
                    this[row], following[row] = _dot(a0, x0), _dot(a1, x0)
            row += 4 if four else 1


@njit
def _expand(q: Any, spans: Any, order: Any, low: Any, part: Any, parts: Any) -> None:
    """y[row] += low[row] @ B for this thread's share of the columns: those that the threads of
    the layer itself have written, as they halve the output too."""
    out = q[_OUT]
    begin, end = out * part // parts // 8 * 8, out * (part + 1) // parts // 8 * 8
    end = out if part == parts - 1 else end
    offsets = carray(_integers(q[_OFFSETS]), (q[_SLICES] + 1,))
    for group in range(q[_GROUPS]):
        for piece in range(q[_SLICES]):
            column, last = max(begin, offsets[piece]), min(end, offsets[piece + 1])
            while column < last:
                count = min(_COLUMNS, last - column)
                _expand_block(q, spans[group], order, low, piece * q[_RANK], column, count)
                column += count


@njit
def _expand_block(
    q: Any, span: Any, order: Any, low: Any, at: Any, column: Any, count: Any
) -> None:
    """The rows of a group in `count` columns; `at`: where the slice begins in `low`."""
    slot, row, end = span
    rank = carray(_integers(q[_RANKS]), (q[_SLOTS],))[slot]
    while row < end:
        two = row + 2 <= end
        y = _row(q[_Y], order[row], q[_Y_STEP], column, count)
        z = _row(q[_Y], order[row + 1 if two else row], q[_Y_STEP], column, count)
        for k in range(0, rank, 4):
            line = slot * q[_RANK] + k
            b0 = _row(q[_B], line, q[_OUT], column, count)
            b1 = _row(q[_B], line + 1, q[_OUT], column, count)
            b2 = _row(q[_B], line + 2, q[_OUT], column, count)
            b3 = _row(q[_B], line + 3, q[_OUT], column, count)
            l0, l1, l2, l3 = low[at + k], low[at + k + 1], low[at + k + 2], low[at + k + 3]
            here = (l0[row], l1[row], l2[row], l3[row])
            if two:
                there = (l0[row + 1], l1[row + 1], l2[row + 1], l3[row + 1])
                _add_to_two(y, z, b0, b1, b2, b3, here, there)
            else:
                _add_to_one(y, b0, b1, b2, b3, here)
        row += 2 if two else 1


@cfunc(types.void(types.CPointer(types.int64)), cache=True)
def _run(places: Any) -> None:
    q = carray(places, (_PLACES,))
    spans = carray(_integers(q[_SPANS]), (q[_GROUPS], 3))
    rows = spans[q[_GROUPS] - 1, 2]
    order = carray(_integers(q[_ORDER]), (rows,))
    # A thread writes a stretch of its own: a line of the cache that changes hands costs as much
    # as a hundred products.
    low = carray(_floats(q[_LOW]), (q[_RANK] * q[_SLICES], rows))
    part, parts = _thread(), _threads()
    _shrink(q, spans, order, low, part, parts)
    _barrier()
    _expand(q, spans, order, low, part, parts)


class Kernel:
    """One layer's call. `a`: (slots, slices * rank, in), `b`: (slots, rank, out), both float32
    and contiguous, rank a multiple of 4; `widths`: of the slices of the output."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor, widths: list[int]) -> None:
        rank, out = b.shape[1:]
        self._offsets = np.cumsum([0, *widths], dtype=np.int64)
        self._kept = (a, b)
        self._few: Few | None = None
        self._low = torch.empty(0)
        self._places = np.zeros(_PLACES, dtype=np.int64)
        self._places[_A : _GROUPS] = (
            a.data_ptr(), b.data_ptr(), 0, a.shape[2], rank, len(widths), out,
        )  # fmt: skip
        self._places[_OFFSETS] = self._offsets.ctypes.data
        self._ranks = np.full(b.shape[0], rank, dtype=np.int64)
        self._places[_RANKS] = self._ranks.ctypes.data
        self._places[_SLOTS] = len(self._ranks)
        self._address = self._places.ctypes.data

    def set_rank(self, slot: int, rank: int) -> None:
        """The rank of the adapter in a slot, 0 where it leaves the layer alone."""
        self._ranks[slot] = -(-rank // 4) * 4

    def add(self, y: torch.Tensor, x: torch.Tensor, few: Few) -> None:
        """y[row] += x[row] @ A.T @ B for each of the rows; x: (tokens, in), y: (tokens, out),
        both float32 with neighbouring columns."""
        places = self._places
        if few is not self._few:
            self._low = few.scratch(self._kept[0].shape[1])
            self._few = few
            places[_LOW] = self._low.data_ptr()
            places[_GROUPS] = len(few.spans)
            places[_SPANS] = few.spans.ctypes.data
            places[_ORDER] = few.order.ctypes.data
        places[_X] = x.data_ptr()
        places[_X_STEP] = x.stride(0)
        places[_Y] = y.data_ptr()
        places[_Y_STEP] = y.stride(0)
        _parallel(_run.address, self._address, 0, 0)
