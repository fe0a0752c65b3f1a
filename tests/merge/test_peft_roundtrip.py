"""The merged directory in PEFT: it loads, its logits are those of the float64 sum, and its error
is that of PEFT's own `svd`, which is right where the adapters are plain LoRA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

TOKENS = torch.arange(4, 36).reshape(2, 16)


def load_base(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def train(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    """A random LoRA as PEFT saves it."""
    torch.manual_seed(seed)
    model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def loras(tiny_base_dir: Path, tmp_path: Path) -> list[Path]:
    """Different ranks, rsLoRA, patterns and partly overlapping targets."""
    return [
        train(tiny_base_dir, tmp_path / "a", 1, r=4, lora_alpha=8, target_modules="all-linear"),
        train(
            tiny_base_dir, tmp_path / "b", 2, r=8, lora_alpha=4, use_rslora=True,
            target_modules=["q_proj", "down_proj"], rank_pattern={"q_proj": 2},
        ),
        train(
            tiny_base_dir, tmp_path / "c", 3, r=2, target_modules=["q_proj", "v_proj"],
            layers_to_transform=[1],
        ),
    ]  # fmt: skip


def summed_in_float64(base: Path, loras: list[Path], weights: list[float]) -> torch.Tensor:
    """Logits of the base whose float64 weights carry the weighted sum of PEFT's own updates."""
    model = load_base(base).double()
    for path, weight in zip(loras, weights, strict=True):
        adapted = PeftModel.from_pretrained(load_base(base), path).double()
        for name, module in adapted.base_model.model.named_modules():
            if hasattr(module, "lora_A") and len(module.lora_A):
                delta = module.get_delta_weight("default").detach()
                model.get_submodule(name).weight.data += weight * delta
    return model(TOKENS).logits.detach()


@pytest.mark.parametrize("rule", ["linear", "cat"])
def test_logits_are_those_of_the_sum(
    rule: str, tiny_base_dir: Path, loras: list[Path], run_merge: Callable[..., Any]
) -> None:
    weights = [0.7, 0.5, -0.4]
    result = run_merge(*loras, rule=rule, weights=weights)
    assert result.relative_error < 1e-6
    model = PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory)
    with torch.no_grad():
        logits = model(TOKENS).logits.double()
        plain = load_base(tiny_base_dir)(TOKENS).logits.double()
    expected = summed_in_float64(tiny_base_dir, loras, weights)
    effect = (expected - plain).abs().max()
    assert effect > 0.1
    assert (logits - expected).abs().max() < 1e-4 * effect


def test_every_stored_tensor_is_used_and_none_is_missing(
    tiny_base_dir: Path, loras: list[Path], run_merge: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file

    for chosen in (loras, loras[:2]):
        result = run_merge(*chosen)
        model = PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory)
        stored = load_file(result.directory / "adapter_model.safetensors")
        loaded = {
            name.replace(".default", ""): parameter
            for name, parameter in model.named_parameters()
            if "lora_" in name
        }
        assert loaded.keys() == stored.keys()
        assert all(torch.equal(loaded[name], stored[name]) for name in stored)


def test_saving_again_with_peft_changes_nothing(
    tiny_base_dir: Path, loras: list[Path], tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file

    result = run_merge(*loras, rule="ties")
    PeftModel.from_pretrained(load_base(tiny_base_dir), result.directory).save_pretrained(
        tmp_path / "again"
    )
    first, second = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (result.directory, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("rank", [3, 8])
def test_the_error_is_that_of_peft_svd(
    rank: int, tiny_base_dir: Path, tmp_path: Path, run_merge: Callable[..., Any]
) -> None:
    weights = [0.7, 0.3]
    targets = ["q_proj", "v_proj", "up_proj"]
    loras = [
        train(tiny_base_dir, tmp_path / str(r), r, r=r, lora_alpha=16, target_modules=targets)
        for r in (4, 8)
    ]
    model = PeftModel.from_pretrained(load_base(tiny_base_dir), loras[0], adapter_name="a")
    model.load_adapter(loras[1], adapter_name="b")
    model.add_weighted_adapter(["a", "b"], weights, "both", combination_type="svd", svd_rank=rank)
    lost = norm = 0.0
    for module in model.base_model.model.modules():
        if hasattr(module, "lora_A") and len(module.lora_A):
            a, b, both = (module.get_delta_weight(x).detach().double() for x in ("a", "b", "both"))
            exact = weights[0] * a + weights[1] * b
            lost += (exact - both).square().sum().item()
            norm += exact.square().sum().item()
    result = run_merge(*loras, weights=weights, rank=rank)
    assert result.rank == rank
    assert result.relative_error == pytest.approx((lost / norm) ** 0.5, abs=1e-4)
    assert result.relative_error > 0.05


def test_vllm_reads_the_configuration(loras: list[Path], run_merge: Callable[..., Any]) -> None:
    from vllm.lora.peft_helper import PEFTHelper

    result = run_merge(*loras)
    read = PEFTHelper.from_local_dir(str(result.directory), max_position_embeddings=None)
    assert read.get_rank_and_scaling("model.layers.0.self_attn.q_proj") == (result.rank, 1.0)
    assert read._validate_features() == []


def test_a_conv1d_base_keeps_its_layout(tmp_path: Path, run_merge: Callable[..., Any]) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    base = tmp_path / "gpt2"
    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(base)
    options = {"r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True}
    loras = [train(base, tmp_path / str(seed), seed, **options) for seed in (1, 2)]
    result = run_merge(*loras, weights=[1.0, 0.5])
    with torch.no_grad():
        logits = PeftModel.from_pretrained(load_base(base), result.directory)(TOKENS).logits
    expected = load_base(base).double()
    for path, weight in zip(loras, (1.0, 0.5), strict=True):
        adapted = PeftModel.from_pretrained(load_base(base), path)
        module = adapted.base_model.model.transformer.h[0].attn.c_attn
        delta = module.get_delta_weight("default").detach().double()
        expected.transformer.h[0].attn.c_attn.weight.data += weight * delta
    expected_logits = expected(TOKENS).logits.detach()
    assert (logits.double() - expected_logits).abs().max() < 1e-4
