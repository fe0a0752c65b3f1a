"""Which type each tensor of a GGUF file has, in llama.cpp's mixtures.

`q4_k_m` and the like are no types but rules: the tensors that lose most get more bits. The rules
are those of llama.cpp (llama-quant.cpp, `llama_tensor_get_type`) without an importance matrix, for
dense models of the architectures that are written here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

# The mixture -> the type of most tensors, and what gguf calls the file.
_PLAIN = {
    "f32": ("F32", "ALL_F32"),
    "f16": ("F16", "MOSTLY_F16"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
_MIXED = {
    "q2_k": ("Q2_K", "MOSTLY_Q2_K"),
    "q3_k_s": ("Q3_K", "MOSTLY_Q3_K_S"),
    "q3_k_m": ("Q3_K", "MOSTLY_Q3_K_M"),
    "q3_k_l": ("Q3_K", "MOSTLY_Q3_K_L"),
    "q4_k_s": ("Q4_K", "MOSTLY_Q4_K_S"),
    "q4_k_m": ("Q4_K", "MOSTLY_Q4_K_M"),
    "q5_k_s": ("Q5_K", "MOSTLY_Q5_K_S"),
    "q5_k_m": ("Q5_K", "MOSTLY_Q5_K_M"),
    "q6_k": ("Q6_K", "MOSTLY_Q6_K"),
}
KINDS = _PLAIN | _MIXED
"""Everything that `adz export --gguf` writes."""

# For rows that do not divide into super-blocks.
_SMALLER = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_LAYER = re.compile(r"blk\.(\d+)\.")
_LARGE = 80
"""Layers of what llama.cpp takes for a 70B model."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """One mixture over one model.

    kind: a key of `KINDS`. architecture: in llama.cpp's words. heads_per_kv: query heads that share
    keys and values. tied: whether the head is one with the embedding.
    """

    kind: str
    architecture: str
    layers: int
    heads_per_kv: int
    tied: bool

    def type_of(self, name: str, shape: tuple[int, ...]) -> GGMLQuantizationType:
        """The type of a tensor by llama.cpp's name; shape: (rows, width)."""
        from gguf import GGMLQuantizationType as Kind

        if len(shape) < 2:
            return Kind.F32
        chosen = KINDS[self.kind][0]
        if self.kind in _MIXED:
            chosen = self._chosen(name, shape[-1], chosen)
        return Kind[_fitting(chosen, shape[-1])]

    def _chosen(self, name: str, width: int, default: str) -> str:
        part = name.split(".")[-2]
        if part == "output" or (part == "token_embd" and self.tied):
            return "Q6_K" if _fits(default, width) else "Q8_0"
        found = _LAYER.match(name)
        layer = int(found[1]) if found else 0
        if part == "attn_v":
            return self._of_values(layer, default)
        if part == "ffn_down":
            return self._of_down(layer, default)
        if part == "attn_output":
            return {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(self.kind, default)
        return default

    def _of_values(self, layer: int, default: str) -> str:
        chosen = {
            "q2_k": "Q4_K" if self.heads_per_kv >= 4 else "Q3_K",
            "q3_k_m": "Q5_K" if layer < 2 else "Q4_K",
            "q3_k_l": "Q5_K",
            "q4_k_s": "Q5_K" if layer < 4 else default,
            "q4_k_m": "Q6_K" if self._is_sensitive(layer) else default,
            "q5_k_m": "Q6_K" if self._is_sensitive(layer) else default,
        }.get(self.kind, default)
        return "Q5_K" if self._is_70b() and chosen in ("Q3_K", "Q4_K") else chosen

    def _of_down(self, layer: int, default: str) -> str:
        early = layer < self.layers // 8
        return {
            "q2_k": "Q3_K",
            "q3_k_m": "Q5_K" if layer < self.layers // 16 else "Q4_K",
            "q3_k_l": "Q5_K",
            "q4_k_s": "Q5_K" if early else default,
            "q4_k_m": "Q6_K" if self._is_sensitive(layer) else default,
            "q5_k_m": "Q6_K" if self._is_sensitive(layer) else default,
        }.get(self.kind, default)

    def _is_70b(self) -> bool:
        """As llama.cpp names sizes: with a key for each query, it is Llama's 65B instead."""
        named = {"llama": self.heads_per_kv > 1, "qwen2": True}.get(self.architecture, False)
        return self.layers == _LARGE and named

    def _is_sensitive(self, layer: int) -> bool:
        """The first and the last eighth of the layers, and every third between them."""
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: str, width: int) -> str:
    """The type, or one with smaller blocks, or at last float16, for rows of `width`."""
    if not _fits(kind, width):
        kind = _SMALLER.get(kind, kind)
    return kind if _fits(kind, width) else "F16"


def _fits(kind: str, width: int) -> bool:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return bool(width % GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0] == 0)
