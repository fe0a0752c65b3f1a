"""Gates on how an adapter fits its base and its method."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

Q = "base_model.model.model.layers.0.self_attn.q_proj"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("prefix", ["", "model.", "base_model.mode."])
def test_a_wrong_prefix_is_refused(
    payload: Path, refused: Callable[..., None], prefix: str
) -> None:
    tensors = load_file(payload / WEIGHTS)
    renamed = {n.replace("base_model.model.", prefix, 1): t for n, t in tensors.items()}
    save_file(renamed, payload / WEIGHTS)
    refused("is not below base_model.model.", known=False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("q_proj", "qq_proj"),
        ("layers.0", "layers.1"),
        ("model.layers", "model.model.layers"),
        ("model.layers", "layers"),
    ],
)
def test_an_adapter_of_another_base_is_refused(
    payload: Path,
    check: Callable[..., None],
    refused: Callable[..., None],
    old: str,
    new: str,
    edit_config: Callable[..., None],
) -> None:
    edit_config(payload, target_modules=None)
    tensors = load_file(payload / WEIGHTS)
    save_file({n.replace(old, new): t for n, t in tensors.items()}, payload / WEIGHTS)
    check(known=False)
    refused("none of its 2 tensors match a module of llama")


def test_an_adapter_that_fits_partly_is_refused(
    payload: Path,
    refused: Callable[..., None],
    edit_config: Callable[..., None],
    edit_tensors: Callable[..., None],
) -> None:
    other = Q.replace("q_proj", "k_proj")
    edit_config(payload, target_modules=["q_proj", "k_proj"])
    edit_tensors(
        payload, {f"{other}.lora_A.weight": floats(2, 8), f"{other}.lora_B.weight": floats(8, 2)}
    )
    refused(f"2 of its 4 tensors match a module of llama: {other}.lora_A.weight does not")


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("lora_A.weight", floats(2, 9), "(r, 8) expected"),
        ("lora_B.weight", floats(9, 2), "(8, r) expected"),
        ("lora_magnitude_vector", floats(9), "8 elements expected"),
        ("ia3_l", floats(9, 1), "8 elements expected"),
        ("base_layer.weight", floats(8, 9), "(8, 8) expected"),
    ],
)
def test_dimensions_are_those_of_the_base(
    payload: Path,
    refused: Callable[..., None],
    name: str,
    tensor: np.ndarray,
    expected: str,
    edit_tensors: Callable[..., None],
) -> None:
    edit_tensors(payload, {f"{Q}.{name}": tensor})
    refused(f"q_proj of llama is (8, 8): {expected}")


@pytest.mark.parametrize("zero", ["lora_A.weight", "lora_B.weight"])
def test_an_imported_adapter_that_does_nothing_is_refused(
    payload: Path,
    check: Callable[..., None],
    refused: Callable[..., None],
    zero: str,
    edit_tensors: Callable[..., None],
) -> None:
    old = load_file(payload / WEIGHTS)[f"{Q}.{zero}"]
    edit_tensors(payload, {f"{Q}.{zero}": np.zeros_like(old) * -1})
    refused("its low-rank products are all zero: the adapter changes nothing")
    check(made_by="merge")
    edit_tensors(payload, {f"{Q}.lora_magnitude_vector": floats(8)})
    check()


@pytest.fixture
def prompt(payload: Path) -> Path:
    values = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    (payload / CONFIG).write_text(json.dumps(values))
    save_file({"prompt_embeddings": floats(4, 8)}, payload / WEIGHTS)
    return payload


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"prompt_embeddings": floats(3, 8)}, "adapter_config.json says 4 virtual tokens"),
        ({"prompt_embeddings": floats(4)}, "adapter_config.json says 4 virtual tokens"),
        ({"prompt_embeddings": floats(4, 9)}, "has width 9, not 8 (the base's hidden size)"),
        ({"other": floats(4, 8)}, "it holds other but no prompt_embeddings"),
    ],
)
def test_virtual_tokens_fit_the_base(
    prompt: Path,
    check: Callable[..., None],
    refused: Callable[..., None],
    tensors: dict[str, np.ndarray],
    message: str,
) -> None:
    check()
    save_file(tensors, prompt / WEIGHTS)
    refused(message)


def test_a_method_of_its_own_has_its_own_names(
    payload: Path, check: Callable[..., None], refused: Callable[..., None]
) -> None:
    (payload / CONFIG).write_text('{"size": 3}')
    save_file({"down": floats(2, 2)}, payload / WEIGHTS)
    check(storage="own", method="bottleneck")
    refused("peft_type is 'None'")
    save_file({"down": np.full((2, 2), np.nan, np.float32)}, payload / WEIGHTS)
    refused("tensor down holds NaN or Inf", storage="own", method="bottleneck")
    (payload / CONFIG).write_text('{"trust_remote_code": true}')
    refused("trust_remote_code may not be", storage="own", method="bottleneck")


def test_a_manifest_cannot_choose_which_rules_hold(
    check: Callable[..., None], refused: Callable[..., None]
) -> None:
    check(method="lora", storage="peft")
    refused("it says that lora is stored as own, it is peft", method="lora", storage="own")
