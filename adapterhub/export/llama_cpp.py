"""What llama.cpp calls the parts of a model, for the architectures that are written here.

The facts are those of llama.cpp's convert_hf_to_gguf.py; the names of tensors come from its
package `gguf`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from adapterhub.errors import AdzError
from adapterhub.export.mixtures import KINDS, Mixture
from adapterhub.plugins import is_installed

if TYPE_CHECKING:
    from gguf import GGUFWriter

# Architecture in config.json -> in llama.cpp, and whether its rows of q and k are reordered.
_ARCHITECTURES = {
    "LlamaForCausalLM": ("llama", True),
    "MistralForCausalLM": ("llama", True),
    "Qwen2ForCausalLM": ("qwen2", False),
    "Qwen3ForCausalLM": ("qwen3", False),
}


class LlamaCppModel:
    """One base's architecture in llama.cpp's terms.

    Raises AdzError for an architecture, or a part of one, that is not written here.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        if not is_installed("gguf"):
            raise AdzError("GGUF files need gguf", "pip install 'adapterhub[train]'")
        from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

        architecture = str((config.get("architectures") or ["?"])[0])
        if architecture not in _ARCHITECTURES:
            raise AdzError(
                f"{architecture} is not written as GGUF here, only {', '.join(_ARCHITECTURES)}",
                "adz export REF --merged DIR, then llama.cpp's convert_hf_to_gguf.py",
            )
        self.config = config
        self.name, self._permuted = _ARCHITECTURES[architecture]
        self._heads = int(config["num_attention_heads"])
        self._kv_heads = int(config.get("num_key_value_heads") or self._heads)
        self._head_size = int(config.get("head_dim") or config["hidden_size"] // self._heads)
        self._rope: Mapping[str, Any] = {
            "rope_theta": config.get("rope_theta", 10000.0),
            **(config.get("rope_scaling") or {}),
            **(config.get("rope_parameters") or {}),
        }
        self._rope_type = str(self._rope.get("rope_type") or self._rope.get("type") or "default")
        self._check(architecture)
        arch = next(a for a, name in MODEL_ARCH_NAMES.items() if name == self.name)
        self._names = get_tensor_name_map(MODEL_ARCH(arch), int(config["num_hidden_layers"]))

    @property
    def has_permuted_biases(self) -> bool:
        """Whether q and k have biases whose rows are reordered."""
        return self._permuted and bool(self.config.get("attention_bias"))

    def tensor_name(self, name: str) -> str:
        """llama.cpp's name of a tensor, such as `blk.0.attn_q.weight`."""
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise AdzError(f"llama.cpp has no place for {name}", "is it a plain model?")
        return str(found)

    def reorder(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """Rows of q and k: llama.cpp rotates neighbours, transformers the two halves of a head."""
        if not self._permuted:
            return rows
        heads = {"q_proj": self._heads, "k_proj": self._kv_heads}.get(name.split(".")[-2])
        if heads is None:
            return rows
        halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)

    def mixture(self, kind: str, *, tied: bool) -> Mixture:
        """How `kind` is made of this model. tied: the head is one with the embedding."""
        layers = int(self.config["num_hidden_layers"])
        return Mixture(kind, self.name, layers, self._heads // self._kv_heads, tied)

    def write_parameters(self, writer: GGUFWriter, file_type: str) -> None:
        """Everything that llama.cpp reads from config.json. file_type: one of `KINDS`."""
        from gguf import GGML_QUANT_VERSION, LlamaFileType

        config = self.config
        writer.add_file_type(LlamaFileType[KINDS[file_type][1]])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(self._heads)
        writer.add_head_count_kv(self._kv_heads)
        writer.add_key_length(self._head_size)
        writer.add_value_length(self._head_size)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(self._head_size)
        writer.add_rope_freq_base(float(self._rope["rope_theta"]))
        self._write_scaling(writer)

    def rope_factors(self) -> torch.Tensor | None:
        """Llama 3's divisors of the rotary frequencies, (head size / 2,); None for others."""
        if self._rope_type != "llama3":
            return None
        rope = self._rope
        steps = torch.arange(0, self._head_size, 2, dtype=torch.float64) / self._head_size
        waves = 2 * math.pi * float(rope["rope_theta"]) ** steps
        context = float(rope["original_max_position_embeddings"])
        low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
        factor = float(rope["factor"])
        smooth = ((context / waves - low) / (high - low)).clamp(0, 1)
        return (1 / ((1 - smooth) / factor + smooth)).float()

    def _write_scaling(self, writer: GGUFWriter) -> None:
        from gguf import RopeScalingType

        if self._rope_type == "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(self._rope["factor"]))

    def _check(self, architecture: str) -> None:
        config = self.config
        unsupported = {
            f"rope of the type {self._rope_type}": self._rope_type
            not in ("default", "linear", "llama3"),
            f"hidden_act {config.get('hidden_act')}": config.get("hidden_act", "silu") != "silu",
            "a rotation of a part of each head": self._rope.get("partial_rotary_factor", 1) != 1,
            "sliding windows": bool(config.get("use_sliding_window")),
        }
        for what, found in unsupported.items():
            if found:
                raise AdzError(
                    f"{architecture} with {what} is not written as GGUF here",
                    "adz export REF --merged DIR, then llama.cpp's convert_hf_to_gguf.py",
                )
