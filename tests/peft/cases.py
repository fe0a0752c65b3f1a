"""Options small enough for tiny models, and what trains and compares them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import transformers

from adapterhub import specs
from adapterhub.plugins import load_plugins

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
BASES = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ),
    "gemma": lambda: transformers.GemmaForCausalLM(
        transformers.GemmaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=1, head_dim=16)
    ),
    "qwen": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            **SIZES, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True
        )
    ),
    "mistral": lambda: transformers.MistralForCausalLM(
        transformers.MistralConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2)
    ),
    "gpt_neox": lambda: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**SIZES, num_attention_heads=4)
    ),
    "falcon": lambda: transformers.FalconForCausalLM(
        transformers.FalconConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
        )
    ),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            **SIZES, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4
        )
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(
            **SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4,
            num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1,
        )
    ),
}  # fmt: skip
SMALL: Mapping[str, Mapping[str, Any]] = {
    "adalora": {"init_r": 4, "target_r": 2},
    "adamss": {"r": 8, "num_subspaces": 2},
    "adaption_prompt": {"adapter_len": 4},
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 50},
    "oft": {"block_size": 16},
    "p_tuning": {"hidden_size": 16},
    "pvera": {"r": 8},
    "vera": {"r": 8},
    "road": {"group_size": 16},
    "trainable_tokens": {"token_indices": [1, 5, 9]},
    "unilora": {"theta_d_length": 64},
    "vblora": {"num_vectors": 8, "vector_length": 16},
    "waveft": {"n_frequency": 50},
    **{
        name: {"r": 4}
        for name in ("lora", "rslora", "dora", "pissa", "eva", "loftq", "miss", "psoft", "shira")
    },
}
IDS = torch.arange(48).reshape(3, 16) * 7 % 60 + 2


@cache
def methods() -> dict[str, specs.Method]:
    """The descriptors of PEFT's methods."""
    return {
        p.component.name: p.component
        for p in load_plugins().provided(specs.Method)
        if p.plugin.name == "peft" and isinstance(p.component, specs.Method)
    }


def implementation(name: str) -> Any:
    return load_plugins().load_implementation(methods()[name])()


def options_of(name: str, **given: Any) -> Any:
    model = load_plugins().load_options(methods()[name])
    return model.model_validate({**SMALL.get(name, {}), **given})


def make_base(name: str) -> Any:
    """Always the same weights, larger than transformers makes them, so that nothing is lost in
    rounding."""
    torch.manual_seed(7)
    model = BASES[name]().float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            if parameter.dim() > 1:
                parameter.mul_(2)
    model.name_or_path = name
    return model


def attach(name: str, base: Any, **given: Any) -> Any:
    torch.manual_seed(1)
    method = implementation(name)
    adapted = method.attach(base, options_of(name, **given), prepared=False)
    if hasattr(method, "calibrate"):
        method.calibrate(adapted, [batch()])
    if hasattr(method, "begin"):
        method.begin(adapted, 2)
    return adapted


def batch() -> dict[str, torch.Tensor]:
    return {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}


def step(name: str, adapted: Any, number: int = 1) -> dict[str, bool]:
    """One optimizer step of a plain loop; whether each trainable parameter has got a gradient."""
    method = implementation(name)
    trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.5)
    adapted.train()
    logits = adapted(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -16:-1]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten()).backward()
    reached = {n: p.grad is not None and bool(p.grad.any()) for n, p in trained.items()}
    if hasattr(method, "before_step"):
        method.before_step(adapted)
    torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    optimizer.step()
    if hasattr(method, "after_step"):
        method.after_step(adapted, number)
    optimizer.zero_grad()
    adapted.eval()
    return reached


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return found[:, -16:].double()


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())
