"""`adz export --gguf` and `--lora-gguf`, read by llama.cpp and by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from adapterhub import Hub
from adapterhub.bases.sources.gguf import read_model
from adapterhub.errors import AdzError
from adapterhub.export.llama_cpp_vocabulary import write_vocabulary

from .conftest import LINEAR, Commit, LlamaCpp, assert_same, unmerged_logits

IDS = [5, 17, 99, 42, 77, 120, 200, 31]
SIZES = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "tied, with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, tie_word_embeddings=True, attention_bias=True)
    ),
    "llama 3 rope": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=dict(ROPE))),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
}


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "target_modules": LINEAR, **options})


def write_base(model: Any, tokenizer_from: Path, folder: Path) -> Path:
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_from).save_pretrained(folder)
    return folder


def expected_after(name: str, ids: list[int]) -> torch.Tensor:
    return unmerged_logits(name, ids)[-1]


@pytest.mark.parametrize("model", MODELS)
def test_llama_cpp_answers_as_transformers(
    model: str, commit: Commit, tiny_base_dir: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = write_base(MODELS[model](), tiny_base_dir, tmp_path / "base")
    commit("one", base, lora())
    result = Hub().export_gguf("one", tmp_path / "one.gguf", kind="f32")
    # transformers cannot read what llama.cpp's biases of q and k mean.
    assert (result.comparison is None) == (model == "tied, with biases")
    if result.comparison:
        assert result.comparison.relative < 1e-5
    expected = expected_after("one", IDS)
    given = LlamaCpp(tmp_path / "one.gguf").next_token(IDS, 320)
    assert_same(given, expected, 2e-3)
    # The base alone answers otherwise, so that the adapter is what was compared.
    Hub().export_gguf("base", tmp_path / "base.gguf", kind="f32")
    alone = LlamaCpp(tmp_path / "base.gguf").next_token(IDS, 320)
    with pytest.raises(AssertionError):
        assert_same(alone, expected, 0.02)


@pytest.mark.parametrize(("kind", "tolerance"), [("f16", 5e-3), ("bf16", 3e-2), ("q8_0", 5e-2)])
def test_number_formats(
    kind: str, tolerance: float, commit: Commit, tiny_base_dir: Path, tmp_path: Path
) -> None:
    commit("one", tiny_base_dir, lora())
    result = Hub().export_gguf("one", tmp_path / "one.gguf", kind=kind)
    types = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "one.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == types["token_embd.weight"] == kind.upper()
    assert types["output_norm.weight"] == "F32"
    given = LlamaCpp(tmp_path / "one.gguf").next_token(IDS, 320)
    assert_same(given, expected_after("one", IDS), tolerance)
    assert 0 < result.losses[kind].of_weights < 0.01


def test_texts_are_cut_into_the_same_tokens(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path
) -> None:
    commit("one", tiny_base_dir, lora())
    Hub().export_gguf("one", tmp_path / "one.gguf", kind="f32")
    llama = LlamaCpp(tmp_path / "one.gguf")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    for text in ("It's 2026, naïve café!", "<|im_start|>user\nhi<|im_end|>\n"):
        ids = tokenizer(text)["input_ids"]
        assert_same(llama.next_token(text, 320), expected_after("one", ids), 2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 40}},
        {"target_modules": ["embed_tokens", "k_proj"]},
    ],
)
def test_an_adapter_alone_over_the_base(
    options: dict[str, Any], commit: Commit, tiny_base_dir: Path, tmp_path: Path
) -> None:
    commit("one", tiny_base_dir, lora(**options))
    Hub().export_gguf("base", tmp_path / "base.gguf", kind="f32", compare=False)
    Hub().export_lora_gguf("one", tmp_path / "one.gguf", kind="f32")
    llama = LlamaCpp(tmp_path / "base.gguf", tmp_path / "one.gguf")
    given = llama.next_token(IDS, 320)
    assert_same(given, expected_after("one", IDS), 2e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "llama.cpp has no use_dora, which one@1 uses"),
        ({"modules_to_save": ["lm_head"]}, "llama.cpp has no modules_to_save"),
    ],
)
def test_what_llama_cpp_cannot_put_over_a_base(
    options: dict[str, Any], reason: str, commit: Commit, tiny_base_dir: Path, tmp_path: Path
) -> None:
    method = "dora" if "use_dora" in options else "lora"
    commit("one", tiny_base_dir, lora(**options), method=method)
    with pytest.raises(AdzError, match=reason):
        Hub().export_lora_gguf("one", tmp_path / "sub" / "one.gguf")
    assert not (tmp_path / "sub").exists()


def test_an_architecture_that_is_not_written(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path, adz: Any
) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=1, n_head=2))
    base = write_base(model, tiny_base_dir, tmp_path / "base")
    commit("one", base, lora(target_modules=["c_attn"], fan_in_fan_out=True))
    done = adz("export", "one", tmp_path / "one.gguf", "--gguf", "f16")
    assert done.code == 1
    assert "GPT2LMHeadModel is not written as GGUF here, only LlamaForCausalLM" in done.err
    assert not (tmp_path / "one.gguf").exists()


def test_a_tokenizer_that_is_not_written(tiny_base_dir: Path, tmp_path: Path) -> None:
    from gguf import GGUFWriter
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = Tokenizer.from_file(str(tiny_base_dir / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(AdzError, match="no known name for the way the tokenizer cuts texts"):
        write_vocabulary(GGUFWriter(None, "llama"), tmp_path, 320)


def test_a_file_is_never_written_over(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path, adz: Any
) -> None:
    commit("one", tiny_base_dir, lora())
    (tmp_path / "one.gguf").write_text("mine")
    for options in (("--gguf", "f16"), ("--lora-gguf",)):
        done = adz("export", "one", tmp_path / "one.gguf", *options)
        assert done.code == 2
        assert "exists already" in done.err
    assert (tmp_path / "one.gguf").read_text() == "mine"


def test_the_file_says_what_it_is(commit: Commit, tiny_base_dir: Path, tmp_path: Path) -> None:
    commit("one", tiny_base_dir, lora())
    Hub().export_gguf("one", tmp_path / "one.gguf", kind="f16", compare=False)
    fields = GGUFReader(tmp_path / "one.gguf").fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["general.name"].contents() == "one@1"
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    assert read_model(tmp_path / "one.gguf").config.num_key_value_heads == 2
