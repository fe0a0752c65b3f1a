"""Whether the tensors of an adapter fit the modules of a base. One that fits partly would
silently do something else than it was trained for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import AdapterKey, BaseModules, is_vocabulary

Problem = tuple[str, str]

_WRONG_BASE = "name the base that it was trained on with --base"


def check_fit(
    tensors: Mapping[str, TensorInfo],
    keys: Mapping[str, AdapterKey],
    config: Mapping[str, Any],
    base_name: str,
    modules: BaseModules,
) -> Problem | None:
    """What does not fit, and what to do; None when every tensor fits."""
    own = set(config.get("modules_to_save") or ())
    strangers = [n for n, key in keys.items() if not _is_known(key, own, modules)]
    if strangers:
        share = "none" if len(strangers) == len(keys) else f"{len(keys) - len(strangers)}"
        return (
            f"{share} of its {len(keys)} tensors match a module of {base_name}: "
            f"{strangers[0]} does not",
            _WRONG_BASE,
        )
    for name, key in keys.items():
        weight = modules.weight_shape(key.module)
        if weight is None or key.module.rpartition(".")[2] in own:
            continue
        expected = _expected(key, tensors[name].shape, weight, config)
        if expected is not None:
            return (
                f"tensor {name} is {_text(tensors[name].shape)}, but {key.module} of "
                f"{base_name} is {_text(weight)}: {expected} expected",
                _WRONG_BASE,
            )
    return None


def check_prompt(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], modules: BaseModules | None
) -> Problem | None:
    """Virtual tokens: (tokens, width), width the base's hidden size, or for a prefix keys and
    values of every layer."""
    info = tensors.get("prompt_embeddings")
    if info is None:
        return f"it holds {next(iter(tensors))} but no prompt_embeddings", ""
    tokens = config.get("num_virtual_tokens")
    if len(info.shape) != 2 or info.shape[0] != tokens:
        return (
            f"prompt_embeddings is {_text(info.shape)}, but adapter_config.json says "
            f"{str(tokens)[:40]} virtual tokens",
            "",
        )
    if modules is None:
        return None
    width, reason = _prompt_width(config, modules.config)
    if width is not None and info.shape[1] != width:
        return f"prompt_embeddings has width {info.shape[1]}, not {width} ({reason})", _WRONG_BASE
    return None


def _prompt_width(config: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[int | None, str]:
    """The width that fits the base, and why; None where the base does not say."""
    text = base.get("text_config") or base
    hidden = text.get("hidden_size") or text.get("n_embd")
    if config["peft_type"] != "PREFIX_TUNING":
        return hidden, "the base's hidden size"
    layers = text.get("num_hidden_layers") or text.get("n_layer")
    heads = text.get("num_attention_heads") or text.get("n_head")
    if not (hidden and layers and heads):
        return None, ""
    head = text.get("head_dim") or hidden // heads
    keys = (text.get("num_key_value_heads") or heads) * head
    return 2 * layers * keys, f"keys and values of {layers} layers"


def _is_known(key: AdapterKey, own: set[str], modules: BaseModules) -> bool:
    if key.module in modules:
        return True
    # A head that was trained from scratch is not in the base.
    return not key.added and not own.isdisjoint(key.module.split("."))


def _expected(
    key: AdapterKey, shape: tuple[int, ...], weight: tuple[int, ...], config: Mapping[str, Any]
) -> str | None:
    """The shape that would fit, as text, where this one does not."""
    if len(weight) != 2:
        return None
    # Conv1D of GPT-2 holds (in, out) where Linear holds (out, in).
    outputs, inputs = reversed(weight) if config.get("fan_in_fan_out") else weight
    name = key.parameter.partition(".")[0]
    if config.get("target_parameters"):
        return None
    if name == "lora_A" and key.parameter != "lora_A.bias":
        return None if shape[1:] == (inputs,) else f"(r, {inputs})"
    if key.parameter in ("lora_B.weight", "lora_B"):
        return None if shape[:1] == (outputs,) else f"({outputs}, r)"
    # An embedding may have got new tokens, but its width stays.
    if name == "lora_embedding_B":
        return None if shape[:1] == (weight[1],) else f"({weight[1]}, r)"
    if name in ("lora_magnitude_vector", "ia3_l"):
        return None if math.prod(shape) in weight else f"{outputs} elements"
    if key.parameter == "weight":
        fits = shape[1:] == weight[1:] if is_vocabulary(key.module) else shape == weight
        return None if fits else _text(weight)
    return None


def _text(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
