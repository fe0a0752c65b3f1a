"""Reading adapters: PEFT itself says what an update is; what is no plain LoRA is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import MontecloraConfig, VeloraConfig
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from adapterhub.errors import AdzError
from adapterhub.merge.lora import LoraAdapter


def tiny_llama() -> torch.nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


def tiny_gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))


def saved(model: torch.nn.Module, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    """Attach a random LoRA and save it; returns the PEFT model."""
    torch.manual_seed(1)
    peft_model = get_peft_model(model, LoraConfig(**options))
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter).to(dtype)
    peft_model.save_pretrained(folder)
    return peft_model


def peft_deltas(peft_model: Any) -> dict[str, torch.Tensor]:
    """PEFT's own updates by module name, as (m, n)."""
    found = {}
    for name, module in peft_model.base_model.model.named_modules():
        if hasattr(module, "lora_A") and (len(module.lora_A) or len(module.lora_embedding_A)):
            delta = module.get_delta_weight("default").detach()
            transposed = module.fan_in_fan_out or len(module.lora_embedding_A)
            found[name] = delta.T if transposed else delta
    return found


CASES = {
    "plain": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "rank_pattern": {r"layers\.0\.self_attn\.q_proj": 2, "up_proj": 3, "proj": 9},
        "alpha_pattern": {"^model.layers.1.self_attn.k_proj": 1.5, "q_proj": 12},
    },
    "rslora patterns": {
        "r": 4,
        "use_rslora": True,
        "target_modules": r".*\.(q_proj|v_proj)",
        "rank_pattern": {"v_proj": 1},
        "alpha_pattern": {r".*\.1\..*v_proj": 5},
    },
    "embedding and head": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["embed_tokens", "lm_head", "q_proj"],
        "rank_pattern": {"embed_tokens": 3},
    },
    "tied embedding and head": {
        "target_modules": ["embed_tokens", "lm_head"],
        "ensure_weight_tying": True,
    },
    # These differ from a plain LoRA while they are trained only.
    "mica": {"target_modules": ["q_proj"], "init_lora_weights": "mica"},
    "orthogonal": {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"},
    "velora": {"target_modules": ["q_proj"], "velora_config": VeloraConfig()},
    "monteclora": {"target_modules": ["q_proj"], "monteclora_config": MontecloraConfig()},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_an_update_is_what_peft_says(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    expected = peft_deltas(saved(tiny_llama(), tmp_path, dtype, **CASES[case]))
    _assert_same(LoraAdapter("a", tmp_path), expected, dtype)


def test_conv1d_of_gpt2(tmp_path: Path) -> None:
    model = saved(
        tiny_gpt2(), tmp_path, torch.float32, r=3, target_modules=["c_attn"], fan_in_fan_out=True
    )
    adapter = LoraAdapter("a", tmp_path)
    assert adapter.modules["transformer.h.0.attn.c_attn"] == (3, 48, 16)
    _assert_same(adapter, peft_deltas(model), torch.float32)


def _assert_same(
    adapter: LoraAdapter, expected: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    assert set(adapter.modules) == set(expected)
    # PEFT multiplies in the adapter's own precision, we in float32.
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 0.02, torch.float16: 0.003}[dtype]
    for module, delta in expected.items():
        factors = adapter.factors(module, tuple(delta.shape))
        assert factors.a.dtype == factors.b.dtype == torch.float32
        ours = factors.scale * factors.b @ factors.a
        assert (ours - delta.float()).norm() <= tolerance * ours.norm(), module


def test_a_missing_module_is_zero(make_lora: Any) -> None:
    factors = LoraAdapter("a", make_lora("a").path).factors("other", (7, 5))
    assert (factors.b @ factors.a).shape == (7, 5)
    assert not (factors.b @ factors.a).any()


CONVERT = "adz convert mine --to lora --rank 8"
REFUSALS = [
    ({"peft_type": "IA3"}, "no LoRA adapter but IA3"),
    ({"use_dora": True}, rf"is DoRA, .*{CONVERT}"),
    ({"kasa_config": {"beta": 0.1}}, f"is KaSA.*{CONVERT}"),
    ({"use_qalora": True}, f"is QALoRA.*{CONVERT}"),
    ({"use_bdlora": {"nblocks": 2}}, f"is a block-diagonal LoRA.*{CONVERT}"),
    ({"init_lora_weights": "pissa"}, rf"changes the base's weights .*{CONVERT}\)$"),
    ({"init_lora_weights": "OLoRA"}, rf"changes the base's weights .*{CONVERT}\)$"),
    ({"init_lora_weights": "pissa_niter_4"}, f"{CONVERT} --initial DIR"),
    ({"init_lora_weights": "corda"}, f"{CONVERT} --initial DIR"),
    ({"init_lora_weights": "loftq"}, f"{CONVERT} --initial DIR"),
    ({"init_lora_weights": "lora_ga"}, f"{CONVERT} --initial DIR"),
    ({"lora_bias": True}, r"lora_bias.*train it without"),
    ({"bias": "all"}, r"bias=all.*train it without"),
    ({"modules_to_save": ["lm_head", "norm"]}, r"whole modules \(lm_head, norm\).*target_modules"),
    ({"trainable_token_indices": [1]}, r"single tokens.*target_modules"),
    ({"target_parameters": ["x"]}, r"bare parameters \(x\)"),
    ({"layer_replication": [[0, 1]]}, "replicates layers"),
    ({"alora_invocation_tokens": [1]}, "aLoRA"),
    ({"arrow_config": {"top_k": 3}}, "Arrow"),
    ({"r": 5}, r"k_proj has factors of rank 4 and 4, its adapter_config.json says 5"),
    ({"rank_pattern": {"up_proj": 2}}, r"up_proj has factors of rank 4 and 4, .* says 2"),
]


@pytest.mark.parametrize(("config", "reason"), REFUSALS, ids=[str(c) for c, _ in REFUSALS])
def test_what_is_no_plain_lora_is_refused(
    config: dict[str, Any], reason: str, make_lora: Any
) -> None:
    lora = make_lora("a")
    path = lora.path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    with pytest.raises(AdzError, match=rf"^mine.*{reason}"):
        LoraAdapter("mine", lora.path)


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("q.lora_embedding_A", (2, 2), "q has no lora_B"),
        ("q.lora_magnitude_vector", (2,), "q.lora_magnitude_vector is no factor of a linear layer"),
        ("q.lora_B.bias", (2,), "q.lora_B.bias is no factor of a linear layer"),
        ("q.ia3_l", (2, 1), "q.ia3_l is no factor of a linear layer"),
        ("q.lora_A.weight", (2, 2), "q has no lora_B"),
    ],
)
def test_other_tensors_are_refused(
    name: str, shape: tuple[int, ...], reason: str, make_lora: Any
) -> None:
    from safetensors.torch import load_file, save_file

    lora = make_lora("a")
    file = lora.path / "adapter_model.safetensors"
    save_file({**load_file(file), name: torch.zeros(shape)}, file)
    with pytest.raises(AdzError, match=reason):
        LoraAdapter("mine", lora.path)


def test_convolutions_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"c.lora_A.weight": torch.zeros(2, 3, 1, 1), "c.lora_B.weight": torch.zeros(4, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    with pytest.raises(AdzError, match="c is a convolution"):
        LoraAdapter("mine", tmp_path)


def test_a_truncated_file_is_refused(make_lora: Any) -> None:
    lora = make_lora("a")
    file = lora.path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(AdzError, match=r"mine: adapter_model.safetensors cannot be read"):
        LoraAdapter("mine", lora.path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_names_adapter_and_module(value: float, make_lora: Any) -> None:
    from safetensors.torch import load_file, save_file

    lora = make_lora("a")
    file = lora.path / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.mlp.up_proj.lora_B.weight"][3, 1] = value
    save_file(tensors, file)
    adapter = LoraAdapter("mine", lora.path)
    with pytest.raises(AdzError, match=r"mine: model\.mlp\.up_proj holds NaN or infinity"):
        adapter.factors("model.mlp.up_proj", (40, 24))


def test_pickled_weights_are_not_read(make_lora: Any) -> None:
    lora = make_lora("a")
    (lora.path / "adapter_model.safetensors").rename(lora.path / "adapter_model.bin")
    with pytest.raises(AdzError, match=r"mine has no adapter_model\.safetensors"):
        LoraAdapter("mine", lora.path)
