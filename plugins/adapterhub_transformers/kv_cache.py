"""Keys and values of the rows that run, one slot a row, each row with a length of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Cache

_GRAIN = 64
"""Positions by which slots grow at the least."""
_MEMORY_SHARE = 0.25
# Far beyond any key or value, and a product of two is still a number.
_LARGEST = 1e15


def cache_bytes(device: torch.device) -> int:
    """How much memory keys and values may take: a quarter of what is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _MEMORY_SHARE)
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    free = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(int(free) * 1024 * _MEMORY_SHARE)


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` tokens of the row in `slot`, at positions from `start`."""

    slot: int
    start: int
    count: int


class SlotCache(Cache):  # type: ignore[misc]
    """What the model's attention layers write to and read from.

    Before each call of the model, `decode` or `fill` says where its tokens belong. Tensors a
    layer are (slots, heads, positions, head size).
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._slots, self._positions = 0, 0
        self._segments: Sequence[Segment] = ()
        self._at: tuple[torch.Tensor, torch.Tensor] | None = None
        self._longest = 0

    @property
    def bytes_of_token(self) -> int:
        """What one position of one row takes, known after the first call of the model."""
        layers = [*self.keys, *self.values]
        return sum(layer.shape[1] * layer.shape[3] * layer.element_size() for layer in layers)

    def decode(self, positions: torch.Tensor, longest: int) -> None:
        """Next: one token for each of the first rows, at `positions` (rows,) int64, of which
        `longest` is the largest."""
        self._reserve(positions.numel(), longest + 1)
        self._at = (torch.arange(positions.numel(), device=positions.device), positions)
        self._longest = longest + 1

    def fill(self, segments: Sequence[Segment]) -> None:
        """Next: these segments one behind the other as one row. Several begin at position 0 and
        see only themselves; a single one sees all of its row."""
        end = max(segment.start + segment.count for segment in segments)
        self._reserve(1 + max(segment.slot for segment in segments), end)
        self._at, self._segments = None, segments

    def put(self, slot: int, source: Cache) -> int:
        """Copy the only row of `source` to a slot; its length."""
        length = int(source.get_seq_length())
        self._reserve(slot + 1, length)
        for index, layer in enumerate(source.layers):
            self._grow(index, layer.keys, layer.values)
            self.keys[index][slot, :, :length] = layer.keys[0]
            self.values[index][slot, :, :length] = layer.values[0]
        return length

    def move(self, source: int, target: int, length: int) -> None:
        """Move a row of `length` positions to another slot."""
        for layer in (*self.keys, *self.values):
            layer[target, :, :length] = layer[source, :, :length]

    def release(self) -> None:
        """Give all memory back, where no row is left."""
        self.keys.clear()
        self.values.clear()
        self._slots, self._positions = 0, 0

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each attention layer: keeps the new keys and values, (rows, heads, tokens,
        head size), and returns all that the layer may look at."""
        key_states, value_states = _finite(key_states), _finite(value_states)
        self._grow(layer_idx, key_states, value_states)
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        if self._at is not None:
            rows, positions = self._at
            keys[rows, :, positions] = key_states[:, :, 0]
            values[rows, :, positions] = value_states[:, :, 0]
            return keys[: len(rows), :, : self._longest], values[: len(rows), :, : self._longest]
        begin = 0
        for part in self._segments:
            places = slice(part.start, part.start + part.count)
            keys[part.slot, :, places] = key_states[0, :, begin : begin + part.count]
            values[part.slot, :, places] = value_states[0, :, begin : begin + part.count]
            begin += part.count
        if len(self._segments) > 1:
            return key_states, value_states
        part, end = self._segments[0], self._segments[0].start + self._segments[0].count
        return keys[part.slot, None, :, :end], values[part.slot, None, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows have lengths of their own, so that callers give the positions; 0."""
        return 0

    def _reserve(self, slots: int, positions: int) -> None:
        if positions > self._positions:
            self._positions = max(-(-positions // _GRAIN) * _GRAIN, 2 * self._positions)
        if slots > self._slots:
            self._slots = max(slots, 2 * self._slots)

    def _grow(self, index: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        while len(self.keys) <= index:
            self.keys.append(keys.new_empty(0, keys.shape[1], 0, keys.shape[3]))
            self.values.append(values.new_empty(0, values.shape[1], 0, values.shape[3]))
        for layers in (self.keys, self.values):
            old = layers[index]
            if old.shape[0] < self._slots or old.shape[2] < self._positions:
                new = old.new_zeros(self._slots, old.shape[1], self._positions, old.shape[3])
                new[: old.shape[0], :, : old.shape[2]] = old
                layers[index] = new


def _finite(states: torch.Tensor) -> torch.Tensor:
    """Rows see one another with a weight of zero, and zero times infinity is not a number: an
    adapter that overflows must not reach the others."""
    clean = torch.nan_to_num(states, nan=0.0, posinf=0.0, neginf=0.0)
    return clean.clamp_(-_LARGEST, _LARGEST) if clean.dtype == torch.float32 else clean
