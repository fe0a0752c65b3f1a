"""The k-quants against llama.cpp's own quantizers, byte for byte, and its mixtures."""

from __future__ import annotations

import ctypes
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

from adapterhub import Hub
from adapterhub.export.k_quants import quantize
from adapterhub.export.mixtures import Mixture

from .conftest import Commit, LlamaCpp, assert_same, loaded_logits
from .test_gguf import IDS, SIZES, lora, write_base

KINDS = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")


def weights(case: str) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(64, 1024, generator=random)
    if case == "sparse":
        x[:, :300] = 0
        x[5], x[6], x[7] = 0, 1, -1
        x[8, ::2] = 0
    return {
        "normal": x * 0.05,
        "heavy": x**5,
        "sparse": x,
        "tiny": x * 1e-9,
        "positive": x.abs() + 1,
        "whole": x.mul(2).round(),
        "bfloat16": x.bfloat16().float(),
    }[case]


CASES = ("normal", "heavy", "sparse", "tiny", "positive", "whole", "bfloat16")


def type_of(kind: str) -> GGMLQuantizationType:
    return GGMLQuantizationType[kind.upper()]


@pytest.fixture(scope="module")
def ggml():
    """llama.cpp's `ggml_quantize_chunk`, without an importance matrix."""
    import xllamacpp

    (file,) = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(file))
    function = library.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3,
                         ctypes.c_void_p]  # fmt: skip

    def run(x, kind):
        block, size = GGML_QUANT_SIZES[kind]
        source = np.ascontiguousarray(x.numpy())
        made = np.zeros((len(x), x.shape[1] // block * size), np.uint8)
        library.ggml_quantize_init(int(kind))
        function(int(kind), source.ctypes.data, made.ctypes.data, 0, *x.shape, None)
        return made

    return run


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_of_llama_cpp(kind, case, ggml):
    x = weights(case)
    np.testing.assert_array_equal(quantize(x, kind).numpy(), ggml(x, type_of(kind)))


@pytest.mark.parametrize(
    ("kind", "lost"),
    [("q2_k", 0.35), ("q3_k", 0.2), ("q4_k", 0.09), ("q5_k", 0.05), ("q6_k", 0.025)],
)
def test_read_back_by_gguf_it_is_near(kind, lost):
    x = weights("normal")
    back = torch.from_numpy(dequantize(quantize(x, kind).numpy(), type_of(kind)))
    assert 0 < (back - x).norm() / x.norm() < lost


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "Q5_1", "Q8_0"])
def test_the_types_for_other_rows_are_those_of_llama_cpp_too(kind, ggml):
    """gguf's own; a row of 576, which SmolLM2 has, is no multiple of 256."""
    from gguf import quants

    x = weights("normal")[:, :576].contiguous()
    made = quants.quantize(x.numpy(), GGMLQuantizationType[kind])
    np.testing.assert_array_equal(made, ggml(x, GGMLQuantizationType[kind]))


def types(kind, *, layers=32, heads_per_kv=1, tied=False, width=4096):
    mixture = Mixture(kind, layers, heads_per_kv, tied)
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = [f"blk.{layer}.{part}.weight" for layer in range(layers) for part in parts]
    names += ["token_embd.weight", *([] if tied else ["output.weight"])]
    return {name: mixture.type_of(name, (8, width)).name for name in names}


def test_a_mixture_is_as_llama_quantize_describes_it():
    """Its help and release notes: half of attn_v and ffn_down of q4_k_m are Q6_K."""
    found = types("q4_k_m")
    counts = {
        part: Counter(kind for name, kind in found.items() if part in name)
        for part in ("attn_v", "ffn_down", "attn_q", "ffn_up", "attn_output")
    }
    assert counts["attn_v"] == counts["ffn_down"] == {"Q6_K": 16, "Q4_K": 16}
    assert all(counts[part] == {"Q4_K": 32} for part in ("attn_q", "ffn_up", "attn_output"))
    assert (found["output.weight"], found["token_embd.weight"]) == ("Q6_K", "Q4_K")
    assert types("q4_k_m", tied=True)["token_embd.weight"] == "Q6_K"
    assert set(types("q6_k").values()) == {"Q6_K"}
    small = types("q3_k_m")
    assert [small[f"blk.{n}.attn_v.weight"] for n in range(3)] == ["Q5_K", "Q5_K", "Q4_K"]
    assert small["blk.9.attn_output.weight"] == "Q4_K"
    assert types("q2_k")["blk.0.attn_v.weight"] == "Q3_K"
    assert types("q2_k", heads_per_kv=4)["blk.0.attn_v.weight"] == "Q4_K"
    assert types("q4_k_s", layers=80)["blk.40.attn_v.weight"] == "Q5_K"


def test_rows_that_do_not_divide_take_smaller_blocks():
    found = types("q4_k_m", width=576, tied=True)
    assert found["blk.5.attn_q.weight"] == "Q5_0"
    assert found["blk.0.attn_v.weight"] == "Q8_0"
    assert found["token_embd.weight"] == "Q8_0"
    assert types("q2_k", width=576)["blk.0.attn_q.weight"] == "Q4_0"
    assert types("q5_k_s", width=576)["blk.0.attn_q.weight"] == "Q5_1"
    assert types("q4_k_m", width=40)["blk.5.attn_q.weight"] == "F16"


@pytest.mark.parametrize("kind", ["q2_k", "q3_k_m", "q4_k_m", "q5_k_s", "q6_k"])
def test_llama_cpp_reads_the_file_and_answers_by_its_weights(
    kind, commit: Commit, tiny_base_dir, tmp_path
):
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_size": 256, "intermediate_size": 512}
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False))
    commit("one", write_base(model, tiny_base_dir, tmp_path / "base"), lora())
    result = Hub().export_gguf("one", tmp_path / "one.gguf", kind=kind)
    reader = GGUFReader(tmp_path / "one.gguf")
    found = {t.name: t.tensor_type.name for t in reader.tensors}
    assert found["blk.0.attn_q.weight"] == kind[:4].upper()
    assert result.size < 0.5 * (tmp_path / "base" / "model.safetensors").stat().st_size
    from adapterhub.bases.sources.gguf import read_model

    read_model(tmp_path / "one.gguf").save_pretrained(tmp_path / "read")
    expected = loaded_logits(tmp_path / "read", IDS)[-1]
    assert_same(LlamaCpp(tmp_path / "one.gguf").next_token(IDS, 320), expected, 0.05)
