"""Adapters that PEFT itself writes pass the gates on their own base, and on no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from adapterhub.bases.adapter_files import WEIGHTS, adapter_facts
from adapterhub.bases.headers import read_header
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseDigests, BaseRecord, Manifest
from adapterhub_registry.gates import check_payload

GPT2 = ["c_attn", "c_fc", "c_proj"]
LLAMA = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2)
    ),
    # Conv1D keeps its weights the other way round.
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    ),
    # One key head, heads wider than hidden_size / heads, a tied head.
    "gemma": lambda: transformers.GemmaForCausalLM(
        transformers.GemmaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=1, head_dim=16)
    ),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            **SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            tie_word_embeddings=True,
        )
    ),
}  # fmt: skip


def lora(**options: Any) -> Callable[[str], Any]:
    return lambda base: peft.LoraConfig(
        **{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    )


def other(kind: str, **options: Any) -> Callable[[str], Any]:
    return lambda base: getattr(peft, kind)(
        target_modules=["c_attn" if base == "gpt2" else "q_proj"], task_type="CAUSAL_LM", **options
    )


def virtual(kind: str, **options: Any) -> Callable[[str], Any]:
    return lambda base: getattr(peft, kind)(num_virtual_tokens=4, task_type="CAUSAL_LM", **options)


EVERYWHERE: dict[str, Callable[[str], Any]] = {
    "lora": lora(),
    "rslora": lora(use_rslora=True),
    "dora": lora(use_dora=True),
    "without-task": lora(task_type=None),
    "pattern": lora(
        target_modules=r".*\.(q_proj|c_attn)$",
        rank_pattern={".*q_proj": 2},
        modules_to_save=["lm_head"],
    ),
    "embeddings": lora(target_modules=["embed_tokens", "wte", "lm_head"]),
    "ia3": lambda base: peft.IA3Config(task_type="CAUSAL_LM"),
    "prefix": virtual("PrefixTuningConfig"),
    "prompt": virtual("PromptTuningConfig"),
    "p-tuning": virtual("PromptEncoderConfig", encoder_hidden_size=16),
    "adalora": other("AdaLoraConfig", init_r=4, target_r=2, total_step=10),
    "vera": other("VeraConfig", r=4),
}
ONCE: dict[tuple[str, str], Callable[[str], Any]] = {
    ("gpt2", "bias"): lora(bias="all", lora_bias=True),
    ("llama", "tokens"): lora(trainable_token_indices=[1, 2]),
    ("llama", "loha"): other("LoHaConfig", r=4),
    ("llama", "lokr"): other("LoKrConfig", r=4),
    ("llama", "oft"): other("OFTConfig", oft_block_size=4),
    ("llama", "boft"): other("BOFTConfig", boft_block_size=4),
    ("llama", "norms"): lambda base: peft.LNTuningConfig(
        target_modules=["input_layernorm"], task_type="CAUSAL_LM"
    ),
    ("llama", "adaption"): lambda base: peft.AdaptionPromptConfig(
        adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"
    ),
}
CASES = {**{(b, m): c for b in MODELS for m, c in EVERYWHERE.items()}, **ONCE}


@pytest.fixture(scope="session")
def peft_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BaseRecord]:
    """The record of one of the tiny models, saved as transformers does."""
    folder = tmp_path_factory.mktemp("peft-bases")

    def make(name: str) -> BaseRecord:
        if not (folder / name).exists():
            MODELS[name]().save_pretrained(folder / name)
        return BaseRecord(
            name=name,
            source="test",
            path=str(folder / name),
            digests=BaseDigests(weights="w", arch="a", tokenizer="t"),
            architecture="any",
            parameters=1,
            dtype="F32",
            created="",
        )

    return make


def save(base: str, configuration: Any, directory: Path) -> Any:
    """Attach, fill with random values and save, as a training run would."""
    torch.manual_seed(0)
    model = peft.get_peft_model(MODELS[base](), configuration)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    model.save_pretrained(directory)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("base", "method"), CASES)
def test_what_peft_writes_passes(
    tmp_path: Path,
    peft_base: Callable[[str], BaseRecord],
    make_manifest: Callable[..., Manifest],
    base: str,
    method: str,
) -> None:
    model = save(base, CASES[base, method](base), tmp_path)
    check_payload(tmp_path, make_manifest(), None)
    check_payload(tmp_path, make_manifest(), peft_base(base))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    facts = adapter_facts(read_header(tmp_path / WEIGHTS), config)
    assert facts["dtype"] == "F32"
    if method in ("lora", "rslora", "dora"):
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert facts == {
            "rank": 4,
            "alpha": 8,
            "modules": 8 if base == "gpt2" else 14,
            "targets": GPT2 if base == "gpt2" else LLAMA,
            "parameters": trainable,
            "dtype": "F32",
        }


@pytest.mark.filterwarnings("ignore")
def test_peft_ignores_names_with_an_adapters_name_in_them(tmp_path: Path) -> None:
    saved = save("llama", CASES["llama", "lora"]("llama"), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({n.replace("lora_B", "lora_B.default"): t for n, t in tensors.items()}, weights)
    model = peft.PeftModel.from_pretrained(MODELS["llama"](), tmp_path, adapter_name="sql")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.{}.weight"
    assert saved.state_dict()[name.format("default")].any()
    assert not model.state_dict()[name.format("sql")].any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prefix", "pattern"])
@pytest.mark.parametrize("given", ["gpt2", "qwen3"])
def test_the_same_adapter_on_another_base_is_refused(
    tmp_path: Path,
    peft_base: Callable[[str], BaseRecord],
    make_manifest: Callable[..., Manifest],
    method: str,
    given: str,
) -> None:
    save("llama", CASES["llama", method]("llama"), tmp_path)
    with pytest.raises(AdzError, match=r"tensors match a module|expected|has width"):
        check_payload(tmp_path, make_manifest(), peft_base(given))
