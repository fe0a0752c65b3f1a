"""Which modules a pattern means, and what was probably meant where it means none.

PEFT takes `["q_proj", "typo_proj"]` in silence as long as one of them matches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch

from adapterhub.errors import usage_error

ALL_LINEAR = "all-linear"
AUTO = "auto"


def check_targets(model: Any, targets: str | list[str], option: str) -> None:
    """Raise AdzError when one of the patterns matches no module of `model`.

    A text is a regular expression over a module's whole name; an entry of a list is a name or
    the end of one. These are PEFT's rules.
    """
    names = [name for name, module in model.named_modules() if name and _is_leaf(module)]
    if targets == ALL_LINEAR:
        return
    if isinstance(targets, str):
        names = [name for name, _ in model.named_modules() if name]
        try:
            matched = any(re.fullmatch(targets, name) for name in names)
        except re.error as error:
            raise usage_error(f"{option}: {targets!r} is no regular expression: {error}") from error
        if not matched:
            raise _no_match(model, targets, names, option)
        return
    if not targets:
        raise usage_error(f"{option} is an empty list", f"use {ALL_LINEAR} for all linear layers")
    for target in targets:
        if not any(_ends(name, target) for name in names):
            raise _no_match(model, target, names, option)


def linear_layers(model: Any) -> str | list[str]:
    """What `all-linear` means. PEFT's own word, except where a quantizer holds linear layers in
    classes that PEFT's search does not take for any: there the ends of their names."""
    output = model.get_output_embeddings()
    kinds: dict[str, bool] = {}
    for name, module in model.named_modules():
        if module is not output and hasattr(module, "in_features") and _is_leaf(module):
            end = name.rsplit(".", 1)[-1]
            kinds[end] = kinds.get(end, True) and isinstance(module, torch.nn.Linear)
    return ALL_LINEAR if all(kinds.values()) else sorted(kinds)


def check_parameters(model: Any, targets: Sequence[str], option: str) -> None:
    """Raise AdzError when one of the names is the end of no parameter of `model`."""
    names = [name for name, _ in model.named_parameters()]
    for target in targets:
        if not any(_ends(name, target) for name in names):
            raise _no_match(model, target, names, option, "parameter")


def expert_parameters(model: Any) -> list[str]:
    """The parameters that hold the weights of all experts of a layer in one, by the end of their
    names, such as `mlp.experts.gate_up_proj`; empty where there are none."""
    found = {
        ".".join(name.rsplit(".", 3)[-3:])
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3 and "experts" in name.split(".")
    }
    return sorted(found)


def norm_layers(model: Any) -> list[str]:
    """The normalisation layers, by the ends of their names."""
    found = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and _is_leaf(module)
    }
    return sorted(found)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _is_leaf(module: Any) -> bool:
    if next(module.children(), None) is not None:
        return False
    # A quantised linear layer may hold its weight in buffers.
    return hasattr(module, "in_features") or any(True for _ in module.parameters(False))


def _no_match(
    model: Any, target: str, names: list[str], option: str, word: str = "module"
) -> Exception:
    ends = sorted({name.rsplit(".", 1)[-1] for name in names})
    near = get_close_matches(target.rsplit(".", 1)[-1], ends, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ends[:40])}"
    architecture = type(model).__name__
    return usage_error(f"{option}: {target!r} matches no {word} of {architecture}", hint)
