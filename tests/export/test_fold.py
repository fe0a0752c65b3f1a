"""Every tensor that is folded by formula equals PEFT's own merge of the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig

from adapterhub.errors import AdzError
from adapterhub_peft.fold import fold_ia3, fold_lora

from .conftest import LINEAR, adapt

CAUSAL = "CAUSAL_LM"
GPT2 = ["c_attn", "c_fc", "c_proj"]


def llama(**changes: Any) -> Any:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False, **changes,
    )  # fmt: skip
    torch.manual_seed(1)
    return with_biases(AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval())


def with_biases(model: Any) -> Any:
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter)
    return model


def gpt2() -> Any:
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4)
    return with_biases(GPT2LMHeadModel(config).eval())


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(task_type=CAUSAL, **{"r": 4, "target_modules": LINEAR, **options})


CASES = {
    "lora": (llama, lora()),
    "rslora": (llama, lora(r=6, use_rslora=True)),
    "patterns": (
        llama,
        lora(rank_pattern={"q_proj": 2}, alpha_pattern={r"layers\.1\.mlp\.up_proj": 40}),
    ),
    "dora": (llama, lora(use_dora=True)),
    "biases": (lambda: llama(attention_bias=True), lora(target_modules=LINEAR[:4], bias="all")),
    "lora_bias": (
        lambda: llama(attention_bias=True),
        lora(target_modules=["q_proj"], lora_bias=True),
    ),
    "embedding and head": (llama, lora(target_modules=["embed_tokens", "lm_head", "q_proj"])),
    "modules_to_save": (llama, lora(modules_to_save=["lm_head"])),
    "gpt2": (gpt2, lora(target_modules=GPT2, fan_in_fan_out=True)),
    "gpt2 dora": (gpt2, lora(target_modules=GPT2, fan_in_fan_out=True, use_dora=True)),
    "ia3": (
        llama,
        IA3Config(
            task_type=CAUSAL, target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        ),
    ),
    "ia3 with biases": (
        lambda: llama(attention_bias=True),
        IA3Config(task_type=CAUSAL, target_modules=["k_proj", "v_proj"], feedforward_modules=[]),
    ),
    "ia3 of gpt2": (
        gpt2,
        IA3Config(
            task_type=CAUSAL, target_modules=["c_attn", "mlp.c_proj"],
            feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True,
        ),
    ),
}  # fmt: skip


def folds_of(config: Any, folder: Path, model: Any) -> Any:
    fold = fold_ia3 if isinstance(config, IA3Config) else fold_lora
    return fold(folder, {name: tuple(p.shape) for name, p in model.named_parameters()})


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_as_peft_merges_it(case: str, tmp_path: Path) -> None:
    make, config = CASES[case]
    merged = adapt(make(), config, tmp_path).merge_and_unload()
    expected = {name: p.detach() for name, p in merged.named_parameters()}
    base = make()
    folds = folds_of(config, tmp_path, base)
    changed = set()
    for name, parameter in base.named_parameters():
        before = parameter.detach()
        after = folds[name](before) if name in folds else before
        torch.testing.assert_close(after, expected[name], rtol=1e-5, atol=1e-6)
        if not torch.equal(expected[name], before):
            changed.add(name)
    assert changed == set(folds)


@pytest.mark.parametrize(
    "options",
    [
        {"trainable_token_indices": [1, 2]},
        {"init_lora_weights": "pissa"},
        {"target_modules": ["embed_tokens"], "use_dora": True},
    ],
)
def test_what_only_peft_can_merge_is_left_to_it(options: Any, tmp_path: Path) -> None:
    adapt(llama(), lora(**options), tmp_path)
    assert folds_of(lora(), tmp_path, llama()) is None


def test_a_bias_that_the_base_lacks_is_refused(tmp_path: Path) -> None:
    adapt(llama(), lora(lora_bias=True), tmp_path)
    with pytest.raises(AdzError, match="has no bias in the base"):
        folds_of(lora(), tmp_path, llama())
