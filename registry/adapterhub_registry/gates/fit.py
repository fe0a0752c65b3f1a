"""Whether the tensors of an adapter fit the modules of a base. One that fits partly would
silently do something else than it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.bases.fit import expected_shape, is_known, prompt_width, shape_text
from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import AdapterKey, BaseModules

Problem = tuple[str, str]

WRONG_BASE = "name the base that it was trained on with --base"


def check_fit(
    tensors: Mapping[str, TensorInfo],
    keys: Mapping[str, AdapterKey],
    config: Mapping[str, Any],
    base_name: str,
    modules: BaseModules,
) -> Problem | None:
    """What does not fit, and what to do; None when every tensor fits."""
    strangers = [n for n, key in keys.items() if not is_known(key, config, modules)]
    if strangers:
        share = "none" if len(strangers) == len(keys) else f"{len(keys) - len(strangers)}"
        return (
            f"{share} of its {len(keys)} tensors match a module of {base_name}: "
            f"{strangers[0]} does not",
            WRONG_BASE,
        )
    for name, key in keys.items():
        shape = tensors[name].shape
        expected = expected_shape(key, shape, config, modules)
        if expected is not None:
            weight = modules.weight_shape(key.module) or ()
            return (
                f"tensor {name} is {shape_text(shape)}, but {key.module} of "
                f"{base_name} is {shape_text(weight)}: {expected} expected",
                WRONG_BASE,
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
            f"prompt_embeddings is {shape_text(info.shape)}, but adapter_config.json says "
            f"{str(tokens)[:40]} virtual tokens",
            "",
        )
    if modules is None:
        return None
    width, reason = prompt_width(config, modules.config)
    if width is not None and info.shape[1] != width:
        return f"prompt_embeddings has width {info.shape[1]}, not {width} ({reason})", WRONG_BASE
    return None
