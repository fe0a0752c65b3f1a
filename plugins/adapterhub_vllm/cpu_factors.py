"""The LoRA weights of one linear layer in every slot, laid out for the products of the kernels."""

from __future__ import annotations

from typing import Any

import torch

from adapterhub_vllm.cpu_rows import Batch, Group


class Factors:
    """`a`: for each slice of the output (slots, 1, rank, in), `b`: (slots, 1, out, rank), as
    vLLM holds them; `packed`: whether they lie as `pack` lays them."""

    def __init__(self, a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> None:
        # The wrapper knows us by the identity of this tuple, which must not be given away.
        self.stacked_a = a
        self._a = [stack[:, 0].transpose(1, 2) for stack in a]
        self._b = [stack[:, 0].transpose(1, 2) for stack in b]
        self._rank = a[0].shape[2]
        self._widths = [stack.shape[2] for stack in b]
        self._together = _one_tensor(a)
        self._slots: dict[int, Slot | None] = {}

    @property
    def packed(self) -> bool:
        """Whether one product shrinks for all slices."""
        return self._together is not None

    def forget(self, slot: int) -> None:
        """The slot holds another adapter now."""
        self._slots.pop(slot, None)

    def has(self, slot: int) -> bool:
        """Whether the adapter in `slot` changes this layer."""
        return self._slot(slot) is not None

    def add_group(self, y: torch.Tensor, x: torch.Tensor, group: Group, scale: float) -> None:
        """y[rows] += scale * x[rows] @ A.T @ B.T; x: (tokens, in), y: (tokens, out)."""
        slot = self._slot(group.slot)
        if slot is None:
            return
        part = group.take(x)
        if slot.together is not None:
            lows = torch.mm(part, slot.together).split(self._rank, 1)
        else:
            lows = tuple(None if a is None else torch.mm(part, a) for a in slot.a)
        rows = group.rows
        for out, low, b in zip(_slices(y, self._widths), lows, slot.b, strict=True):
            if low is None:
                continue
            if rows is None:
                out.addmm_(low, b, alpha=scale)
            elif isinstance(rows, slice):
                out[rows].addmm_(low, b, alpha=scale)
            else:
                out.index_add_(0, rows, torch.mm(low, b), alpha=scale)

    def add_batch(self, y: torch.Tensor, x: torch.Tensor, batch: Batch, scale: float) -> None:
        """The same for the rows of several slots at once; only where packed."""
        assert self._together is not None
        placed = x.index_select(0, batch.take).view(batch.slots, -1, x.shape[1])
        lows = torch.bmm(placed, self._together.narrow(0, batch.first, batch.slots))
        pieces = zip(_slices(y, self._widths), lows.split(self._rank, 2), self._b, strict=True)
        for out, low, b in pieces:
            delta = torch.bmm(low, b.narrow(0, batch.first, batch.slots)).flatten(0, 1)
            if batch.keep is not None:
                delta = delta.index_select(0, batch.keep)
            out.index_add_(0, batch.rows, delta, alpha=scale)

    def _slot(self, number: int) -> Slot | None:
        if number not in self._slots:
            ranks = [_true_rank(a[number]) for a in self._a]
            self._slots[number] = self._view(number, ranks) if any(ranks) else None
        return self._slots[number]

    def _view(self, number: int, ranks: list[int]) -> Slot:
        full = self._together is not None and all(rank == self._rank for rank in ranks)
        pairs = list(zip(self._a, ranks, strict=True))
        return Slot(
            together=self._together[number] if full and self._together is not None else None,
            a=[a[number, :, :rank] if rank else None for a, rank in pairs],
            b=[b[number, :rank] for b, rank in zip(self._b, ranks, strict=True)],
        )


class Slot:
    """One adapter's weights: views of true rank. `a`: for each slice (in, rank), None where the
    adapter leaves it alone, `b`: (rank, out); `together`: all of `a` side by side."""

    __slots__ = ("a", "b", "together")

    def __init__(
        self,
        together: torch.Tensor | None,
        a: list[torch.Tensor | None],
        b: list[torch.Tensor],
    ) -> None:
        self.together, self.a, self.b = together, a, b


def pack(layer: Any) -> None:
    """Lay a layer's stacked weights so that one product serves all slices of its output.

    vLLM goes on writing into them, through views of the shapes that it made.
    """
    a, b = layer.lora_a_stacked, layer.lora_b_stacked
    slots, _, rank, width = a[0].shape
    if any(stack.shape != a[0].shape for stack in a) or any(s.shape[3] != rank for s in b):
        return
    rows = torch.zeros(slots, len(a) * rank, width, dtype=a[0].dtype, device=a[0].device)
    layer.lora_a_stacked = tuple(part.unsqueeze(1) for part in rows.split(rank, 1))
    layer.lora_b_stacked = tuple(
        stack.new_zeros(slots, rank, stack.shape[2]).transpose(1, 2).unsqueeze(1) for stack in b
    )


def _one_tensor(a: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
    """(slots, in, slices * rank) over the memory of all of `a`, None where they lie apart."""
    slots, _, rank, width = a[0].shape
    step = rank * width
    lying = all(
        stack.stride() == (len(a) * step, stack.stride(1), width, 1)
        and stack.untyped_storage().data_ptr() == a[0].untyped_storage().data_ptr()
        and stack.storage_offset() == a[0].storage_offset() + number * step
        for number, stack in enumerate(a)
    )
    if not lying:
        return None
    shape, strides = (slots, width, len(a) * rank), (len(a) * step, 1, width)
    return a[0].as_strided(shape, strides, a[0].storage_offset())


def _true_rank(a: torch.Tensor) -> int:
    """vLLM pads A, here (in, rank), with columns of zeros; 0 where a module has no LoRA."""
    used = a.any(dim=0).nonzero()
    return int(used[-1]) + 1 if used.numel() else 0


def _slices(y: torch.Tensor, widths: list[int]) -> list[torch.Tensor]:
    if len(widths) == 1 and y.shape[1] == widths[0]:
        return [y]
    offset, found = 0, []
    for width in widths:
        found.append(y.narrow(1, offset, width))
        offset += width
    return found
