"""What is computed faster is the same: loss and gradients against the model as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from adapterhub.train.batches import Collator
from adapterhub.train.loss import completion_loss
from adapterhub.train.rows import Row
from adapterhub.train.speed import Ranges, quickened
from adapterhub.train.tree import FEW_NODES, plant
from adapterhub_peft.methods import PeftMethod

# Two share three tokens, two are the same up to the last token, one stands alone.
ROWS = [
    Row((5, 6, 7, 8, 9), 2),
    Row((5, 6, 7, 10, 11, 12, 13), 3),
    Row((15, 16, 17), 1),
    Row((15, 16, 18), 1),
    Row((8, 9), 0),
]
SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip


def base_of(kind: str, tiny_base_dir: Path) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        return AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    if kind == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**SHAPE))
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=3))
    if kind == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(**SHAPE))
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    ))  # fmt: skip


def adapted(kind: str, tiny_base_dir: Path, config: Any = None) -> Any:
    config = config or LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(1)
    config.task_type = "CAUSAL_LM"
    return get_peft_model(base_of(kind, tiny_base_dir), config)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gpt2"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("few_nodes", [FEW_NODES, 0], ids=["over nodes", "over rows"])
def test_loss_and_gradients_are_those_of_the_plain_model(
    kind: str, share: bool, few_nodes: int, tiny_base_dir: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("adapterhub.train.tree.FEW_NODES", few_nodes)
    model = adapted(kind, tiny_base_dir).train()
    batch = Collator(pad=0)(ROWS)
    expected = model(**batch).loss
    wanted = gradients(model, expected)
    if not share:
        monkeypatch.setattr("adapterhub.train.loss.has_dropout", lambda model: True)
    with quickened([model], batch, PeftMethod()) as quick:
        assert quick
        loss, tokens = completion_loss(model, batch)
        got = gradients(model, loss / tokens)
    assert loss.item() / int(tokens) == pytest.approx(expected.item(), rel=1e-5)
    assert wanted.keys() == got.keys()
    assert len(got) >= 14 if kind != "gpt2" else got
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-6)
    # Put back: the model computes as before.
    assert gradients(model, model(**batch).loss).keys() == wanted.keys()
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("kind", ["gemma2"])
def test_what_only_the_model_itself_knows_is_left_to_it(kind: str, tiny_base_dir: Path) -> None:
    model = adapted(kind, tiny_base_dir).train()
    batch = Collator(pad=0)(ROWS)
    with quickened([model], batch, PeftMethod()) as quick:
        assert not quick
        loss, tokens = completion_loss(model, batch)
    assert loss.item() / int(tokens) == pytest.approx(model(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules=["up_proj", "down_proj"], init_lora_weights=False),
        LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.5, init_lora_weights=False),
        LoraConfig(r=4, target_modules=["q_proj"], use_dora=True, init_lora_weights=False),
        IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
    ],
)
def test_some_layers_and_other_methods(config: Any, tiny_base_dir: Path) -> None:
    model = adapted("llama", tiny_base_dir, config).eval()
    batch = Collator(pad=0)(ROWS)
    expected = model(**batch).loss
    wanted = gradients(model, expected)
    with quickened([model], batch, PeftMethod()) as quick:
        assert quick
        loss, tokens = completion_loss(model, batch)
        got = gradients(model, loss / tokens)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-6)


def test_adapters_in_one_pass_have_the_gradients_of_passes_of_their_own(
    tiny_base_dir: Path,
) -> None:
    from adapterhub.models import share_weights
    from adapterhub.train.loss import tree_losses

    base = base_of("llama", tiny_base_dir)
    models: list[Any] = []
    for r, targets in ((4, ["q_proj", "up_proj"]), (8, "all-linear"), (2, ["v_proj", "up_proj"])):
        config = LoraConfig(
            r=r, lora_alpha=3 * r, target_modules=targets, task_type="CAUSAL_LM",
            init_lora_weights=False,
        )  # fmt: skip
        models.append(get_peft_model(share_weights(base), config))
    batches = [Collator(pad=0)(rows) for rows in (ROWS, ROWS[2:], ROWS[:2])]
    wanted = [
        gradients(model, model(**batch).loss) for model, batch in zip(models, batches, strict=True)
    ]
    ranges = Ranges()
    with quickened(models, batches[0], PeftMethod(), ranges) as quick:
        assert quick
        trees = [plant(batch) for batch in batches]
        ends = torch.tensor([len(tree.ids) for tree in trees]).cumsum(0).tolist()
        ranges.bounds = list(zip([0, *ends], ends, strict=False))
        losses = tree_losses(models[0], trees)
        means = [x / len(t.targets) for x, t in zip(losses, trees, strict=True)]
        for model in models:
            model.zero_grad()
        torch.stack(means).sum().backward()
    for model, expected in zip(models, wanted, strict=True):
        got = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert got.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-6)


def test_a_tree_has_each_shared_prefix_once_and_no_last_token() -> None:
    tree = plant(Collator(pad=0)(ROWS))
    # 5 6 7 8 | 10 11 12 | 15 16 | 8
    assert tree.ids[0].item() == 5
    assert len(tree.ids) == 4 + 3 + 2 + 1
    assert len(plant(Collator(pad=0)(ROWS), share=False).ids) == sum(len(r.ids) - 1 for r in ROWS)
    assert tree.targets.tolist() == [7, 8, 9, 10, 11, 12, 13, 16, 17, 16, 18, 9]
