"""llama.cpp through the low-level API of llama-cpp-python: a model, and a context of slots."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch

from adapterhub import AdzError
from adz_llama_cpp.flags import Flags
from adz_llama_cpp.runner import BATCH, Entry


class LlamaCpp:
    """Used from one thread. context: tokens of each slot."""

    def __init__(self, file: Path, context: int, flags: Flags) -> None:
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = flags.gpu_layers
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise AdzError(f"llama.cpp cannot load {file}", "its reason stands above")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.sizes = {
            "vocab_size": llama_cpp.llama_vocab_n_tokens(vocabulary),
            "hidden_size": llama_cpp.llama_model_n_embd(self._model),
            "num_hidden_layers": llama_cpp.llama_model_n_layer(self._model),
        }
        self._settings = _settings(context, flags)
        self._context: Any = None
        self._begin()
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def load_adapter(self, file: Path) -> Any:
        """An adapter over the model, until it is freed. All slots forget what they have read."""
        adapter = llama_cpp.llama_adapter_lora_init(self._model, str(file).encode())
        if not adapter:
            raise AdzError(f"llama.cpp cannot put {file.name} over this base")
        # llama.h of older releases: "All adapters must be loaded before context creation".
        self._begin()
        return adapter

    def free_adapter(self, adapter: Any) -> None:
        """Give its memory back."""
        self._use(None)
        llama_cpp.llama_adapter_lora_free(adapter)

    def clear(self, slot: int) -> None:
        """Forget what the slot has read."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def decode(self, adapter: Any, entries: Sequence[Entry]) -> list[torch.Tensor]:
        """Read at most `BATCH` tokens with one adapter (None: the base); the logits, (vocabulary,)
        float32, behind each that wants them, in order."""
        self._use(adapter)
        batch = self._batch
        batch.n_tokens = len(entries)
        for i, entry in enumerate(entries):
            batch.token[i], batch.pos[i], batch.logits[i] = entry.token, entry.place, entry.wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, entry.slot
        if code := llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode: {code}")
        return [self._logits(i) for i, entry in enumerate(entries) if entry.wanted]

    def _begin(self) -> None:
        if self._context:
            llama_cpp.llama_free(self._context)
        self._context = llama_cpp.llama_init_from_model(self._model, self._settings)
        if not self._context:
            raise AdzError(
                f"llama.cpp has no room for a context of {self._settings.n_ctx} tokens",
                "give --max-context, or fewer -- --slots",
            )
        self._memory = llama_cpp.llama_get_memory(self._context)

    def _use(self, adapter: Any) -> None:
        adapters = [adapter] if adapter is not None else []
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * len(adapters))(*adapters)
        scales = (ctypes.c_float * len(adapters))(*[1.0 for _ in adapters])
        llama_cpp.llama_set_adapters_lora(self._context, pointers, len(adapters), scales)

    def _logits(self, i: int) -> torch.Tensor:
        pointer = llama_cpp.llama_get_logits_ith(self._context, i)
        shape = (self.sizes["vocab_size"],)
        # The next step writes over them.
        return torch.from_numpy(np.ctypeslib.as_array(pointer, shape=shape).copy())


def _settings(context: int, flags: Flags) -> Any:
    made = llama_cpp.llama_context_default_params()
    made.n_ctx = context * flags.slots
    made.n_seq_max = flags.slots
    made.n_batch = made.n_ubatch = BATCH
    if flags.threads:
        made.n_threads = made.n_threads_batch = flags.threads
    if flags.kind == "f32":
        made.type_k = made.type_v = llama_cpp.GGML_TYPE_F32
    return made
