"""LoRA on a CPU inside vLLM: plain matrix products over the tokens of each adapter.

vLLM's own wrapper copies a whole A and B for every token, and its index -1 (a request to the
base) selects the last slot, so that base requests in a mixed batch are answered with an
adapter's weights. Here the rows of a batch are grouped by slot once a step, rows of the base
are left alone, and each product has the adapter's true rank instead of the padded one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

if TYPE_CHECKING:
    from vllm.lora.layers import LoRAMapping


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one adapter: a slice where they are neighbours, else an index of int64."""

    slot: int
    rows: slice | torch.Tensor


def group_rows(slots: torch.Tensor) -> list[Group]:
    """`slots`: (tokens,) int64, -1 for the base. One group for each slot that occurs."""
    groups = []
    for slot in sorted(set(slots.tolist())):
        if slot < 0:
            continue
        rows = (slots == slot).nonzero().flatten()
        first, last = int(rows[0]), int(rows[-1])
        adjacent = last - first + 1 == rows.numel()
        groups.append(Group(slot, slice(first, last + 1) if adjacent else rows))
    return groups


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """What vLLM's LoRA layers call. Stacked weights are (slots, 1, rank, in) for A and
    (slots, 1, out, rank) for B, the scale already in B; outputs are changed in place."""

    def __init__(
        self,
        max_num_batched_tokens: int,
        max_batches: int,
        device: torch.device | str,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        self._tokens: list[Group] = []
        self._samples: list[Group] = []
        self._slots: list[int | None] = []
        self._ranks: dict[tuple[int, int], int] = {}

    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        """Called by vLLM whenever the rows of the batch or the adapters in the slots change."""
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self._tokens = group_rows(self.token_lora_indices)
        self._samples = group_rows(self.sampler_indices)
        if self._slots != lora_index_to_id:
            self._slots = list(lora_index_to_id)
            self._ranks.clear()

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] += scale * x @ A[i].T @ B[i].T for each token's adapter.

        x: (tokens, in), y: (tokens, sum(output_slices)).
        """
        for group in self._tokens:
            part = _take(x, group.rows)
            offset = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                rank = self._rank(a, group.slot)
                if rank:
                    low = part @ a[group.slot, 0, :rank].T
                    out = y[:, offset : offset + width]
                    _add(out, group.rows, low, b[group.slot, 0, :, :rank], scale)
                offset += width

    def add_shrink(
        self,
        y: tuple[torch.Tensor, ...] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        """y[i] = scale * x @ A[i].T for each token's adapter; rows of the base become zero."""
        x = x.view(-1, x.shape[-1])
        for out, a in zip(y, lora_a_stacked, strict=True):
            flat = out.view(-1, out.shape[-1]).zero_()
            for group in self._tokens:
                low = _take(x, group.rows).to(flat.dtype) @ a[group.slot, 0].T.to(flat.dtype)
                flat[group.rows, : low.shape[1]] = low * scale

    def add_expand(
        self,
        y: torch.Tensor,
        x: tuple[torch.Tensor, ...] | torch.Tensor,
        lora_b_stacked: tuple[torch.Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] += x[i] @ B[i].T for each token's adapter."""
        flat = y.view(-1, y.shape[-1])
        offset = offset_start
        for low, b, width in zip(x, lora_b_stacked, output_slices, strict=True):
            out = flat[:, offset : offset + width]
            self._expand(out, low, b, add_inputs)
            offset += width

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y += x @ B.T for each token's adapter; x: (tokens, rank) rows of A, looked up."""
        self._expand(y, x, lora_b_stacked, add_inputs)

    def _expand(
        self, y: torch.Tensor, low: torch.Tensor, b: torch.Tensor, add_inputs: bool
    ) -> None:
        if not add_inputs:
            y.zero_()
        for group in self._tokens:
            weight = b[group.slot, 0]
            _add(y[:, : weight.shape[0]], group.rows, _take(low, group.rows), weight, 1.0)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """y += scale * x @ A.T @ B.T for each sampled row's adapter."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        ranks = {group.slot: self._rank(lora_a_stacked, group.slot) for group in self._samples}
        for group in self._sampled(len(x), any(ranks.values())):
            rank = ranks[group.slot]
            if rank:
                low = _take(x, group.rows) @ lora_a_stacked[group.slot, 0, :rank].T
                b = lora_b_stacked[group.slot, 0, :, :rank]
                _add(y[:, : b.shape[0]], group.rows, low, b, scale)

    def _sampled(self, rows: int, adapted: bool) -> Sequence[Group]:
        """The groups of a call on `rows` rows. Log-probabilities of a prompt come with the
        rows of one request, for which the mapping of the step has one entry."""
        mapped = self.sampler_indices.numel()
        if rows == mapped or not adapted:
            return self._samples
        if mapped != 1:
            raise RuntimeError(f"{rows} rows of logits, {mapped} in the mapping of adapters")
        return [Group(group.slot, slice(0, rows)) for group in self._samples]

    def _rank(self, a: torch.Tensor, slot: int) -> int:
        """The true rank in a slot: vLLM pads A with zero rows. 0 where a module has no LoRA."""
        key = (a.data_ptr(), slot)
        rank = self._ranks.get(key)
        if rank is None:
            used = a[slot, 0].any(dim=1).nonzero()
            rank = int(used[-1]) + 1 if used.numel() else 0
            self._ranks[key] = rank
        return rank


def _take(x: torch.Tensor, rows: slice | torch.Tensor) -> torch.Tensor:
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


def _add(
    y: torch.Tensor,
    rows: slice | torch.Tensor,
    low: torch.Tensor,
    weight: torch.Tensor,
    scale: float,
) -> None:
    """y[rows] += scale * low @ weight.T, in place and in y's dtype."""
    low, weight = low.to(y.dtype), weight.to(y.dtype)
    if isinstance(rows, slice):
        y[rows].addmm_(low, weight.T, alpha=scale)
    else:
        y.index_add_(0, rows, low @ weight.T, alpha=scale)
