"""Stands for llama.cpp: what it says follows from the adapter and all that the slot has read."""

from __future__ import annotations

import hashlib

import torch
from adz_llama_cpp.runner import BATCH


class FakeLlama:
    """A `runner.Model`. It fails where llama.cpp would answer wrongly or crash."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary
        self.slots = {}
        self.loaded = {}
        self.loads = []
        self.steps = []

    def load_adapter(self, file):
        self.loads.append(file)
        self.slots.clear()
        handle = object()
        self.loaded[handle] = hashlib.sha256(file.read_bytes()).hexdigest()
        return handle

    def free_adapter(self, adapter):
        del self.loaded[adapter]

    def clear(self, slot):
        self.slots[slot] = []

    def decode(self, adapter, entries):
        assert 0 < len(entries) <= BATCH
        self.steps.append(len(entries))
        weights = self.loaded[adapter] if adapter is not None else "base"
        answers = []
        for entry in entries:
            read = self.slots.setdefault(entry.slot, [])
            assert entry.place == len(read)
            read.append((weights, entry.token))
            if entry.wanted:
                seed = hashlib.sha256(repr(read).encode()).digest()
                random = torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
                logits = torch.randn(self.vocabulary, generator=random)
                logits[:4] = -torch.inf  # no answer ends of itself
                answers.append(logits)
        return answers
