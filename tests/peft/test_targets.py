"""What LoRA adapts when nobody says what: all linear layers, and the experts of a mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")

from peft import PeftModel
from transformers.pytorch_utils import Conv1D

from adapterhub.errors import AdzError

from .cases import IDS, attach, implementation, make_base

DENSE = ("llama", "qwen", "gemma", "mistral", "gpt_neox", "falcon", "gpt2")
MIXTURES = ("mixtral", "qwen3_moe")


def linear_layers(base: Any) -> set[str]:
    """All but the head, as this file sees it."""
    head = base.get_output_embeddings()
    return {
        name
        for name, module in base.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    }


def adapted_layers(adapted: Any) -> set[str]:
    return {
        name.removeprefix("base_model.model.").split(".lora_A")[0]
        for name, _ in adapted.named_parameters()
        if ".lora_A." in name
    }


@pytest.mark.parametrize("name", DENSE)
def test_lora_adapts_all_linear_layers_of_a_family(name: str) -> None:
    base = make_base(name)
    expected = linear_layers(base)
    assert expected
    assert adapted_layers(attach("lora", base)) == expected


@pytest.mark.parametrize("name", MIXTURES)
def test_the_experts_of_a_mixture_are_adapted_too(name: str, tmp_path: Path) -> None:
    base = make_base(name)
    before = {n: p.clone() for n, p in base.named_parameters()}
    plain = base(IDS).logits.detach()
    adapted = attach("lora", base)
    experts = [(n, p) for n, p in adapted.named_parameters() if "experts" in n and "lora_" in n]
    assert len(experts) == 2 * 2 * 2  # two layers, two weights each, A and B

    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        adapted(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert all(float(p.grad.abs().max()) > 0 for _, p in experts if p.grad is not None)
    assert all(p.grad is not None for _, p in experts)

    logits = adapted(IDS).logits.detach()
    assert float((logits - plain).abs().max()) > 1e-3
    implementation("lora").save(adapted, tmp_path)
    fresh = make_base(name)
    assert all(torch.equal(p, before[n]) for n, p in fresh.named_parameters())
    again = PeftModel.from_pretrained(fresh, tmp_path).eval()
    torch.testing.assert_close(again(IDS).logits, logits)


def test_dora_says_that_it_cannot_adapt_experts() -> None:
    with pytest.raises(AdzError, match="DoRA cannot adapt the experts"):
        attach("dora", make_base("mixtral"))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mixtral"])
def test_a_pattern_that_matches_nothing_names_what_is_near(name: str) -> None:
    near = {"llama": "q_proj", "gpt_neox": "query_key_value", "mixtral": "q_proj"}[name]
    with pytest.raises(AdzError) as caught:
        attach("lora", make_base(name), targets=[near[:-1]])
    assert "matches no module" in str(caught.value)
    assert near in (caught.value.hint or "")
