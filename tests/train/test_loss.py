"""The completion-only loss against the plain one of transformers, in value and gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from adapterhub.train.batches import Collator
from adapterhub.train.loss import completion_loss, mean_loss
from adapterhub.train.rows import Row, Rows

ROWS = [Row((5, 6, 7, 8, 9), 2), Row((15, 16, 17), 1), Row((3, 40, 41, 42), 3), Row((8, 9), 0)]


def reference_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """transformers' own loss over all logits, a mean over the scored tokens."""
    loss: torch.Tensor = model(**batch).loss
    return loss


def make_model(kind: str, tiny_base_dir: Path) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        model: Any = GPT2LMHeadModel(GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64,
            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        ))  # fmt: skip
        return model
    if kind == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        ))  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    configs = {
        "lora": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        "prefix": PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        "prompt": PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    }
    return get_peft_model(model, configs[kind]) if kind in configs else model


@pytest.mark.parametrize("kind", ["llama", "lora", "prefix", "prompt", "gpt2", "gemma2"])
def test_it_equals_the_loss_over_all_logits(kind: str, tiny_base_dir: Path) -> None:
    model = make_model(kind, tiny_base_dir).eval()
    batch = Collator(pad=0)(ROWS)
    loss, tokens = completion_loss(model, batch)
    assert int(tokens) == 3 + 2 + 1 + 1
    (loss / tokens).backward()
    mine = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = reference_loss(model, batch)
    expected.backward()
    assert loss.item() / int(tokens) == pytest.approx(expected.item(), rel=1e-5)
    assert mine
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_logits_are_computed_at_scored_positions_only(tiny_base_dir: Path) -> None:
    model = make_model("llama", tiny_base_dir)
    shapes = []
    model.lm_head.register_forward_hook(lambda module, given, out: shapes.append(out.shape))
    completion_loss(model, Collator(pad=0)(ROWS))
    assert shapes == [(7, 320)]
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert shapes[-1] == (1, 3, 320)


def test_the_mean_counts_tokens_and_not_batches(tiny_base_dir: Path) -> None:
    model = make_model("llama", tiny_base_dir).train()
    collate = Collator(pad=0)
    whole = mean_loss(model, Rows(ROWS), collate, 4)
    assert mean_loss(model, Rows(ROWS), collate, 3) == pytest.approx(whole, rel=1e-5)
    assert whole == pytest.approx(reference_loss(model.eval(), collate(ROWS)).item(), rel=1e-5)
    assert model.train(True).training


def test_scoring_restores_the_mode(tiny_base_dir: Path) -> None:
    model = make_model("llama", tiny_base_dir).train()
    mean_loss(model, Rows(ROWS), Collator(pad=0), 4)
    assert model.training
