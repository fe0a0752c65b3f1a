"""The k-quants against llama.cpp's own quantizers, byte for byte, and its mixtures."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

from adapterhub import Hub
from adapterhub.bases.sources.gguf import read_model
from adapterhub.export.k_quants import quantize
from adapterhub.export.mixtures import KINDS as WRITTEN
from adapterhub.export.mixtures import Mixture

from . import record_types
from .conftest import Commit, LlamaCpp, assert_same
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


@pytest.mark.parametrize("name", record_types.MODELS)
def test_each_tensor_has_the_type_that_llama_cpp_gives_it(name):
    """As `llama_model_quantize` chose, asked by record_types.py."""
    recorded = json.loads(record_types.FILE.read_text(encoding="utf-8"))[name]
    assert set(recorded) == set(WRITTEN) - {"f32", "f16", "bf16", "q8_0"}
    layers, kv_heads, *_, tied = record_types.MODELS[name]
    for kind, expected in recorded.items():
        architecture = name.partition(",")[0]
        mixture = Mixture(kind, architecture, layers, record_types.HEADS // kv_heads, tied)
        shapes = record_types.shapes(name).items()
        found = {tensor: mixture.type_of(tensor, shape).name for tensor, shape in shapes}
        assert record_types.in_runs(found) == expected, kind


def test_rows_that_no_block_divides_stay_in_half_precision():
    """llama.cpp writes them so too, but for an embedding, where it gives up."""
    mixture = Mixture("q4_k_m", "llama", 2, 1, tied=True)
    found = {
        n: mixture.type_of(f"{n}.weight", (8, 40)).name for n in ("blk.1.attn_q", "token_embd")
    }
    assert set(found.values()) == {"F16"}


def test_llama_cpp_reads_the_files_and_answers_by_their_weights(
    commit: Commit, tiny_base_dir, tmp_path
):
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_size": 256, "intermediate_size": 512}
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False))
    commit("one", write_base(model, tiny_base_dir, tmp_path / "base"), lora())
    size = (tmp_path / "base" / "model.safetensors").stat().st_size
    for kind in ("q2_k", "q3_k_m", "q4_k_m", "q5_k_s", "q6_k"):
        file = tmp_path / f"{kind}.gguf"
        result = Hub().export_gguf("one", file, kind=kind)
        found = {t.name: t.tensor_type.name for t in GGUFReader(file).tensors}
        assert found["blk.0.attn_q.weight"] == kind[:4].upper()
        assert result.size < 0.5 * size
        with torch.no_grad():
            expected = read_model(file).eval()(input_ids=torch.tensor([IDS])).logits[0, -1]
        assert_same(LlamaCpp(file).next_token(IDS, 320), expected, 0.05)
