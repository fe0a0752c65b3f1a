"""The LoRA weights of one linear layer in every slot, laid out for our products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adapterhub_vllm.cpu_rows import Group, Rows


@dataclass(frozen=True, slots=True)
class Slot:
    """One adapter's weights, views of true rank. `a`: for each slice of the output (in, rank),
    None where the adapter leaves it alone; `b`: (rank, out); `together`: all of `a` in one."""

    together: torch.Tensor | None
    a: list[torch.Tensor | None]
    b: list[torch.Tensor]


class Factors:
    """`a`: for each slice of the output (slots, 1, rank, in), `b`: (slots, 1, out, rank), as
    vLLM holds them, quicker where `pack` laid them."""

    def __init__(self, a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> None:
        # The wrapper knows us by the identity of this tuple, which must not be given away.
        self._stacked = a
        self._a = [stack[:, 0].transpose(1, 2) for stack in a]
        self._b = [stack[:, 0].transpose(1, 2) for stack in b]
        self._rank = a[0].shape[2]
        self._widths = [stack.shape[2] for stack in b]
        lines, columns = _beside(a, 2), _beside(tuple(stack.transpose(2, 3) for stack in b), 3)
        packed = lines is not None and columns is not None
        self._together = lines.transpose(1, 2) if packed and lines is not None else None
        self._kernel = _kernel(lines, columns, self._widths) if packed else None
        self._lines = lines if packed else None
        # By slot: the true rank of each slice, and its views where they were needed.
        self._ranks: dict[int, list[int]] = {}
        self._slots: dict[int, Slot] = {}
        # The rows of the last call, and whether an adapter with few of them is at work here.
        self._rows: Rows | None = None
        self._few = False

    def forget(self, slot: int) -> None:
        """The slot holds another adapter now."""
        self._rows = None
        self._ranks.pop(slot, None)
        self._slots.pop(slot, None)

    def add(self, y: torch.Tensor, x: torch.Tensor, rows: Rows, scale: float) -> None:
        """y[row] += scale * x[row] @ A.T @ B.T with the adapter of each row.

        x: (tokens, in), y: (tokens, out), in the dtype of the weights.
        """
        kernel = self._kernel
        if kernel is None or rows.few is None or scale != 1.0 or x.stride(1) != 1:
            for group in rows.groups:
                self._add_group(y, x, group, scale)
            return
        for group in rows.many:
            self._add_group(y, x, group, scale)
        if rows is not self._rows:
            used = [max(self._find_ranks(slot)) for slot in rows.few.slots]
            self._few = any(used)
            self._rows = rows
        if self._few:
            kernel.add(y, x, rows.few)

    def _add_group(self, y: torch.Tensor, x: torch.Tensor, group: Group, scale: float) -> None:
        if not any(self._find_ranks(group.slot)):
            return
        slot = self._view(group.slot)
        part, rows = group.take(x), group.rows
        lows: Sequence[torch.Tensor | None]
        if slot.together is not None:
            lows = torch.mm(part, slot.together).chunk(len(self._a), 1)
        else:
            lows = tuple(None if a is None else torch.mm(part, a) for a in slot.a)
        offset = 0
        for low, b, width in zip(lows, slot.b, self._widths, strict=True):
            out = y.narrow(1, offset, width)
            offset += width
            if low is None:
                continue
            if isinstance(rows, torch.Tensor):
                out.index_add_(0, rows, torch.mm(low, b), alpha=scale)
            else:
                (out if rows is None else out[rows]).addmm_(low, b, alpha=scale)

    def _find_ranks(self, number: int) -> list[int]:
        """The true rank of each slice, 0 where the adapter in the slot leaves it alone. vLLM
        pads A with lines of zeros."""
        ranks = self._ranks.get(number)
        if ranks is None:
            # A version that is new to the server waits for this in each of its layers.
            if self._lines is not None:
                used = self._lines[number].any(1).view(len(self._a), -1)
            else:
                used = torch.stack([a[number].any(0) for a in self._a])
            ranks = self._ranks[number] = [_last(line) for line in used.tolist()]
            if self._kernel is not None:
                self._kernel.set_rank(number, max(ranks))
        return ranks

    def _view(self, number: int) -> Slot:
        slot = self._slots.get(number)
        if slot is None:
            ranks = self._find_ranks(number)
            full = self._together is not None and min(ranks) == self._rank
            pairs = list(zip(self._a, ranks, strict=True))
            slot = self._slots[number] = Slot(
                together=self._together[number] if full and self._together is not None else None,
                a=[a[number, :, :rank] if rank else None for a, rank in pairs],
                b=[b[number, :rank] for b, rank in zip(self._b, ranks, strict=True)],
            )
        return slot


def pack(layer: Any) -> None:
    """Lay the weights of all slices of a layer's output side by side.

    vLLM goes on writing into them, through views of the shapes that it made.
    """
    a, b = layer.lora_a_stacked, layer.lora_b_stacked
    slots, _, rank, width = a[0].shape
    if any(stack.shape != a[0].shape for stack in a) or any(s.shape[3] != rank for s in b):
        return
    lines = a[0].new_zeros(slots, len(a) * rank, width)
    columns = b[0].new_zeros(slots, rank, sum(stack.shape[2] for stack in b))
    layer.lora_a_stacked = tuple(part.unsqueeze(1) for part in lines.split(rank, 1))
    pieces = columns.split([stack.shape[2] for stack in b], 2)
    layer.lora_b_stacked = tuple(piece.transpose(1, 2).unsqueeze(1) for piece in pieces)


def _beside(stacks: tuple[torch.Tensor, ...], along: int) -> torch.Tensor | None:
    """One tensor (slots, ...) over the memory of all, joined along their axis `along`; None
    where they do not lie so. Each: (slots, 1, lines, columns)."""
    first = stacks[0]
    shape = [first.shape[0], first.shape[2], first.shape[3]]
    shape[along - 1] = sum(stack.shape[along] for stack in stacks)
    strides = (shape[1] * shape[2], shape[2], 1)
    step, offset = strides[along - 1], first.storage_offset()
    for stack in stacks:
        inside = (stack.stride(0), stack.stride(2), stack.stride(3))
        same = stack.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if inside != strides or not same or stack.storage_offset() != offset:
            return None
        offset += stack.shape[along] * step
    return first.as_strided(shape, strides, first.storage_offset())


def _kernel(a: Any, b: Any, widths: list[int]) -> Any:
    """Our own code for few rows, None where it cannot be had for these weights."""
    if a.dtype != torch.float32 or b.shape[1] % 4:
        return None
    try:
        from adapterhub_vllm.cpu_kernel import Kernel
    except ImportError:
        return None
    return Kernel(a, b, widths)


def _last(used: list[bool]) -> int:
    return max((place for place, one in enumerate(used, 1) if one), default=0)
