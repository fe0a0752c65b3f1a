"""LoRA on a CPU inside vLLM: plain matrix products over the tokens of each adapter.

vLLM's own wrapper copies a whole A and B for every token, and its index -1 (a request to the
base) selects the last slot, so that base requests in a mixed batch are answered with an
adapter's weights. Here the rows of a batch are grouped by slot once a step and rows of the base
are left alone. Many rows of an adapter are multiplied with its true rank by PyTorch, few rows
of all adapters by a kernel of our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from adapterhub_vllm.cpu_factors import Factors, pack
from adapterhub_vllm.cpu_rows import NO_ROWS, Group, find_rows

if TYPE_CHECKING:
    from vllm.lora.layers import LoRAMapping

_WRAPPERS: WeakSet[GroupedPunicaWrapper] = WeakSet()


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """What vLLM's LoRA layers call. Stacked weights are (slots, 1, rank, in) for A and
    (slots, 1, out, rank) for B, the scale already in B; outputs are changed in place."""

    # vLLM's own: the entry of each row of the step in the embedding's stacked A.
    _embeddings_indices: torch.Tensor

    def __init__(
        self,
        max_num_batched_tokens: int,
        max_batches: int,
        device: torch.device | str,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        self._tokens = NO_ROWS
        self._samples = NO_ROWS
        self._slots: list[int | None] = []
        self._factors: dict[int, Factors] = {}
        # By slot, then by the memory of a weight: whether it is more than zeros.
        self._used: dict[int, dict[int, bool]] = {}
        _WRAPPERS.add(self)

    def adopt(self, layer: Any) -> None:
        """Lay the weights of a new LoRA layer for our products; called once for each."""
        if isinstance(layer, BaseLinearLayerWithLoRA):
            pack(layer)

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
        self._tokens = find_rows(self.token_lora_indices)
        self._samples = find_rows(self.sampler_indices)
        before = self._slots or [None] * len(lora_index_to_id)
        for slot, (old, new) in enumerate(zip(before, lora_index_to_id, strict=True)):
            if old != new:
                self._used.pop(slot, None)
                for factors in self._factors.values():
                    factors.forget(slot)
        self._slots = list(lora_index_to_id)

    @contextmanager
    def only(self, rows: torch.Tensor) -> Iterator[None]:
        """See `embedding_only`."""
        before = self._tokens, self._embeddings_indices
        self._tokens = find_rows(self.token_lora_indices[rows])
        self._embeddings_indices = self._embeddings_indices[rows]
        try:
            yield
        finally:
            self._tokens, self._embeddings_indices = before

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
        rows = self._tokens
        if not rows.groups:
            return
        factors = self._factors.get(id(lora_a_stacked))
        if factors is None:
            factors = Factors(lora_a_stacked, lora_b_stacked)
            self._factors[id(lora_a_stacked)] = factors
        factors.add(y, x, rows, scale)

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
            for group in self._tokens.groups:
                low = group.take(x).to(flat.dtype) @ a[group.slot, 0].T.to(flat.dtype)
                rows = slice(None) if group.rows is None else group.rows
                flat[rows, : low.shape[1]] = low * scale

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
        for group in self._tokens.groups:
            if self._is_used(b, group.slot):
                weight = b[group.slot, 0]
                _add(y[:, : weight.shape[0]], group, group.take(low), weight, 1.0)

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
        groups = [g for g in self._samples.groups if self._is_used(lora_a_stacked, g.slot)]
        mapped = self.sampler_indices.numel()
        # Log-probabilities of a prompt come with the rows of one request, for which the mapping
        # of the step has one entry.
        if groups and mapped not in (1, len(x)):
            raise RuntimeError(f"{len(x)} rows of logits, {mapped} in the mapping of adapters")
        for group in groups:
            low = group.take(x) @ lora_a_stacked[group.slot, 0].T
            b = lora_b_stacked[group.slot, 0]
            _add(y[:, : b.shape[0]], group, low, b, scale)

    def _is_used(self, weight: torch.Tensor, slot: int) -> bool:
        """Whether the adapter in a slot has something here: most have no LoRA on embeddings."""
        known = self._used.setdefault(slot, {})
        key = weight.data_ptr()
        if key not in known:
            known[key] = bool(weight[slot].any())
        return known[key]


@contextmanager
def embedding_only(rows: torch.Tensor) -> Iterator[None]:
    """Within it the embedding's layer is given these rows of the step alone: int64, ascending."""
    with ExitStack() as all_wrappers:
        for wrapper in _WRAPPERS:
            all_wrappers.enter_context(wrapper.only(rows))
        yield


def _add(
    y: torch.Tensor, group: Group, low: torch.Tensor, weight: torch.Tensor, scale: float
) -> None:
    """y[rows] += scale * low @ weight.T, in place and in y's dtype."""
    low, weight = low.to(y.dtype), weight.to(y.dtype)
    if isinstance(group.rows, torch.Tensor):
        y.index_add_(0, group.rows, low @ weight.T, alpha=scale)
    else:
        rows = y if group.rows is None else y[group.rows]
        rows.addmm_(low, weight.T, alpha=scale)
