"""The gate for `adapter_model.safetensors`: its header, its values, and that it fits its base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from adapterhub.bases.headers import TensorInfo, read_header
from adapterhub.bases.modules import (
    LOW_RANK_PAIRS,
    MAX_RANK,
    AdapterKey,
    BaseModules,
    split_key,
)
from adapterhub.bases.scan import FLOATS
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import Manifest
from adapterhub_registry.gates.fit import WRONG_BASE, check_fit, check_prompt
from adapterhub_registry.gates.indices import SPARSE_TYPES, check_indices, is_index
from adapterhub_registry.gates.patterns import matching, uncovered
from adapterhub_registry.gates.values import scan_values

PROMPT_TYPES = frozenset({
    "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING",
})  # fmt: skip

# Parameters whose modules are chosen by other options than target_modules.
_UNTARGETED = ("adaption_", "token_adapter", "trainable_tokens_")

# What a state that was not saved by PEFT calls them: `lora_A.default.weight`.
_WITH_NAME = re.compile(r"(?:lora_[AB]|lora_embedding_[AB]|ia3_l)\.(?!weight$|bias$).+")


def check_tensors(
    path: Path,
    config: Mapping[str, Any],
    manifest: Manifest,
    base_name: str,
    modules: BaseModules | None,
) -> None:
    """Raise AdzError (exit code 3) for tensors that may not be stored.

    config: the adapter's configuration. modules: those of its base, called `base_name` in
    messages; None where the base is not known.
    """
    tensors = read_header(path)
    if not tensors:
        raise refuse("it holds no tensor", "was the adapter saved while it was not attached?")
    sparse = manifest.storage == "peft" and config["peft_type"] in SPARSE_TYPES
    for name, info in tensors.items():
        if info.dtype not in FLOATS and not (sparse and is_index(name, info)):
            raise refuse(
                f"tensor {name} is {info.dtype}",
                "only floats are stored: save it as F32, F16 or BF16",
            )
    floats = {name: info for name, info in tensors.items() if info.dtype in FLOATS}
    if manifest.storage == "own":
        scan_values(path, floats)
        return
    if config["peft_type"] in PROMPT_TYPES:
        _report(check_prompt(tensors, config, modules))
        scan_values(path, floats)
        return
    keys = {name: key for name in tensors if (key := _taken_apart(name)) is not None}
    _report(_check_ranks(tensors, config))
    _report(_check_targets(keys, config))
    if modules is not None:
        _report(check_fit(tensors, keys, config, base_name, modules))
        if not keys and not matching(config.get("target_modules"), modules.weights()):
            _report((f"target_modules match no module of {base_name}", WRONG_BASE))
    _report(check_indices(path, tensors, keys, modules))
    zeros = scan_values(path, floats)
    if manifest.made_by == "import":
        _report(_check_effect(tensors, zeros))


def refuse(reason: str, hint: str = "") -> AdzError:
    """A refusal of the weights (exit code 3)."""
    return AdzError(
        f"adapter_model.safetensors is refused: {reason}", hint, exit_code=EXIT_VERIFICATION
    )


def _report(problem: tuple[str, str] | None) -> None:
    if problem is not None:
        raise refuse(*problem)


def _taken_apart(name: str) -> AdapterKey | None:
    """None for what the modules of a method share, such as VeRA's `base_model.vera_A`."""
    key = split_key(name)
    if key is not None and _WITH_NAME.fullmatch(key.parameter):
        raise refuse(
            f"tensor {name} has the name of an adapter in it",
            "under any other name PEFT ignores it, and vLLM always: save the adapter with PEFT's "
            "save_pretrained",
        )
    if key is not None:
        return key
    shared = split_key("base_model.model." + name.removeprefix("base_model."))
    if name.startswith("base_model.") and shared and shared.added and not shared.module:
        return None
    raise refuse(
        f"tensor {name} is not below base_model.model.",
        "PEFT would ignore it: save the adapter with PEFT's save_pretrained",
    )


def _check_ranks(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> tuple[str, str] | None:
    pattern = config.get("rank_pattern") or {}
    # AdaLoRA prunes each module to a rank of its own.
    allowed = {config["r"], *pattern.values()} if config["peft_type"] == "LORA" else None
    # One pair of factors serves all experts of a layer there.
    stacked = bool(config.get("target_parameters"))
    for name, info in tensors.items():
        partner, is_first = _partner(name)
        if partner is None:
            continue
        if partner not in tensors:
            return f"tensor {name} has no {partner.rpartition('.lora_')[2]} beside it", ""
        # Of block-diagonal factors one is stored as its blocks.
        if not is_first or config.get("use_bdlora"):
            continue
        other = tensors[partner].shape
        if len(info.shape) < 2 or len(other) < 2 or info.shape[0] != other[1]:
            return f"the ranks of {name} {info.shape} and its partner {other} differ", ""
        rank = info.shape[0]
        if rank > MAX_RANK and not stacked:
            return f"{name} has rank {rank}, at most {MAX_RANK} are served", ""
        if allowed is not None and rank not in allowed and not stacked:
            return f"{name} has rank {rank}, adapter_config.json says {config['r']}", ""
    return None


@lru_cache(maxsize=8192)
def _partner(name: str) -> tuple[str | None, bool]:
    """The other factor of a low-rank pair, and whether `name` is the first; None for what is no
    such factor. Adapters of one base have the same names, so they are remembered."""
    for first, second in LOW_RANK_PAIRS.items():
        if name.endswith(f".{first}"):
            return name.removesuffix(first) + second, True
        if name.endswith(f".{second}"):
            return name.removesuffix(second) + first, False
    return None, False


def _check_targets(
    keys: Mapping[str, AdapterKey], config: Mapping[str, Any]
) -> tuple[str, str] | None:
    """PEFT adapts what target_modules names and silently drops the weights of the rest."""
    if config.get("target_parameters"):
        return None
    adapted = {
        key.module
        for key in keys.values()
        if key.added and not key.parameter.startswith(_UNTARGETED)
    }
    missing = uncovered(config.get("target_modules"), sorted(adapted))
    if missing:
        return (
            f"target_modules in adapter_config.json leaves out {missing[0]} "
            f"({len(missing)} of {len(adapted)} modules)",
            "PEFT would silently drop their weights",
        )
    return None


def _check_effect(tensors: Mapping[str, TensorInfo], zeros: set[str]) -> tuple[str, str] | None:
    """An adapter whose low-rank products are all zero, and that has nothing else, does nothing."""
    partners = {name: _partner(name) for name in tensors}
    products = [(name, other) for name, (other, is_first) in partners.items() if other and is_first]
    in_products = {name for pair in products for name in pair}
    if not products or in_products != set(tensors):
        return None
    if all(a in zeros or b in zeros for a, b in products):
        return (
            "its low-rank products are all zero: the adapter changes nothing",
            "was it saved untrained?",
        )
    return None
