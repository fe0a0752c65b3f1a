"""Gates on adapter_config.json: strict JSON, no code, sane numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = "adapter_config.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON at line 1"),
        ("[]", "it is not a JSON object"),
        ('{"r": 2, "r": 4}', "the key 'r' is there twice"),
        ('{"a": {"r": 2, "r": 4}}', "the key 'r' is there twice"),
        ('{"lora_alpha": NaN}', "NaN is not JSON"),
        ('{"lora_alpha": -Infinity}', "-Infinity is not JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        (" " * (2**20 + 1), "it has 1048577 bytes, at most 1048576 are read"),
    ],
)
def test_the_configuration_is_strict_json(
    payload: Path, refused: Callable[..., None], text: str, message: str
) -> None:
    (payload / CONFIG).write_text(text)
    refused(f"adapter_config.json is refused: {message}")


EVIL = "evil_module"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_mapping", {"base_model_class": "X", "parent_library": EVIL}),
        ("auto_mapping", {"base_model_class": "X", "parent_library": "transformers.models.x"}),
        ("auto_mapping", {"base_model_class": "X.y", "parent_library": "transformers"}),
        ("auto_mapping", {"base_model_class": "X", "parent_library": "transformers", "z": 1}),
        ("auto_mapping", EVIL),
        ("megatron_config", {"a": 1}),
        ("megatron_core", EVIL),
        ("tokenizer_kwargs", {"trust_remote_code": True}),
        ("trust_remote_code", True),
        ("trust_remote_code", "yes"),
        ("trust_remote_code", 0),
        ("prompt_tuning_init_state_dict_path", "/tmp/x.bin"),
    ],
)
def test_keys_that_load_code_are_refused(
    payload: Path,
    refused: Callable[..., None],
    key: str,
    value: Any,
    edit_config: Callable[..., None],
) -> None:
    edit_config(payload, **{key: value})
    refused(f"{key} may not be ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_mapping", None),
        ("auto_mapping", {
            "base_model_class": "Qwen2ForCausalLM",
            "parent_library": "transformers.models.qwen2.modeling_qwen2",
        }),
        ("megatron_config", None),
        ("megatron_core", "megatron.core"),
        ("tokenizer_kwargs", None),
        ("trust_remote_code", False),
        ("a_key_of_a_newer_peft", {"x": 1}),
        ("base_model_name_or_path", "/home/someone/../model"),
        ("r", 2),
        ("rank_pattern", {"^model.layers.0.self_attn.q_proj": 2}),
        ("alpha_pattern", {"q_proj": 0.5}),
    ],
)  # fmt: skip
def test_what_peft_writes_itself_passes(
    payload: Path,
    check: Callable[..., None],
    key: str,
    value: Any,
    edit_config: Callable[..., None],
) -> None:
    edit_config(payload, **{key: value})
    check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": None}, "peft_type is 'None', not the name of a PEFT method"),
        ({"peft_type": "../LORA"}, "peft_type is '../LORA'"),
        ({"r": 0}, "r is '0', not a rank from 1 to 512"),
        ({"r": 513}, "r is '513', not a rank from 1 to 512"),
        ({"r": True}, "r is 'True', not a finite number"),
        ({"r": "2"}, "r is '2', not a finite number"),
        ({"r": 2.0}, "r is '2.0', not a rank"),
        ({"rank_pattern": {"q_proj": 4096}}, "rank_pattern.q_proj is '4096', not a rank"),
        ({"rank_pattern": [2]}, "rank_pattern is '[2]', not a rank"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a finite number"),
        ({"lora_alpha": 10**400}, "not a finite number"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern.q_proj is 'x', not a finite"),
    ],
)
def test_numbers_are_checked(
    payload: Path,
    refused: Callable[..., None],
    changes: dict[str, Any],
    message: str,
    edit_config: Callable[..., None],
) -> None:
    edit_config(payload, **changes)
    refused(message)


def test_an_overflowing_number_is_refused(payload: Path, refused: Callable[..., None]) -> None:
    text = (payload / CONFIG).read_text()
    (payload / CONFIG).write_text(text.replace('"lora_alpha": 4', '"lora_alpha": 1e999'))
    refused("lora_alpha is 'inf', not a finite number")
