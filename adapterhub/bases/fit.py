"""Whether an adapter fits a base, by the names and shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import AdapterKey, BaseModules, is_vocabulary


def is_known(key: AdapterKey, config: Mapping[str, Any], modules: BaseModules) -> bool:
    """Whether the base has the module of a tensor, or the adapter brings it whole."""
    if key.module in modules:
        return True
    # A head that was trained from scratch is not in the base.
    own = tuple(config.get("modules_to_save") or ())
    # PEFT takes a module whose name ends so; a head may consist of several below it.
    parts = key.module.split(".")
    return not key.added and any(part.endswith(own) for part in parts)


def expected_shape(
    key: AdapterKey, shape: tuple[int, ...], config: Mapping[str, Any], modules: BaseModules
) -> str | None:
    """The shape that would fit the module, as text, where `shape` does not; None where it does
    or where the base does not tell."""
    weight = modules.weight_shape(key.module)
    own = config.get("modules_to_save") or ()
    if weight is None or len(weight) != 2 or key.module.rpartition(".")[2] in own:
        return None
    # Conv1D of GPT-2 holds (in, out) where Linear holds (out, in).
    outputs, inputs = reversed(weight) if config.get("fan_in_fan_out") else weight
    name = key.parameter.partition(".")[0]
    # One pair of factors serves all experts, or the factors are stored as blocks.
    if config.get("target_parameters") or config.get("use_bdlora"):
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
        return None if fits else shape_text(weight)
    return None


def prompt_width(config: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[int | None, str]:
    """The width of virtual tokens that fits a base with the configuration `base`, and why; None
    where it does not say."""
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


def first_misfit(
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    keys: Mapping[str, AdapterKey],
    modules: BaseModules,
) -> str | None:
    """The first tensor of an adapter that fits no module of a base, as text; None where all fit.

    keys: the names of `tensors`, taken apart.
    """
    if "prompt_embeddings" in tensors:
        return _prompt_misfit(config, tensors["prompt_embeddings"], modules)
    if not keys:
        return "it has no tensor of a module"
    for name, key in keys.items():
        problem = misfit(name, key, tensors[name].shape, config, modules)
        if problem:
            return problem
    return None


def misfit(
    name: str,
    key: AdapterKey,
    shape: tuple[int, ...],
    config: Mapping[str, Any],
    modules: BaseModules,
) -> str | None:
    """Why one tensor fits no module of a base, as text; None where it fits."""
    if not is_known(key, config, modules):
        return f"there is no {key.module}"
    expected = expected_shape(key, shape, config, modules)
    return f"{name} is {shape_text(shape)}, {expected} expected" if expected else None


def _prompt_misfit(config: Mapping[str, Any], info: TensorInfo, modules: BaseModules) -> str | None:
    width, reason = prompt_width(config, modules.config)
    if width is None or (len(info.shape) == 2 and info.shape[1] == width):
        return None
    return f"prompt_embeddings is {shape_text(info.shape)}, width {width} expected ({reason})"


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for messages: `(64, 128)`."""
    return "(" + ", ".join(map(str, shape)) + ")"
