"""The gate for `adapter_config.json`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterhub.bases.modules import MAX_RANK
from adapterhub.bases.strict_json import parse_object
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub_registry.gates.patterns import check_patterns

MAX_BYTES = 2**20
# Published ones go to a few thousand; far above, the update overflows where it is applied.
MAX_ALPHA = 1e6

# Keys through which a configuration reached code or remote files, and PEFT's own values.
_DANGEROUS: dict[str, tuple[Any, ...]] = {
    "megatron_config": (None,),
    "megatron_core": (None, "megatron.core"),
    "tokenizer_kwargs": (None, {}),
    "trust_remote_code": (None, False),
    "custom_code": (None, False),
    "prompt_tuning_init_state_dict_path": (None,),
}
# What PEFT writes itself where no task type was given: a class of transformers or diffusers.
_AUTO_MODULE = re.compile(
    r"transformers(?:\.models\.[a-z0-9_]+\.modeling_[a-z0-9_]+)?"
    r"|diffusers\.(?:models|pipelines)(?:\.[a-z0-9_]+)+",
    re.ASCII,
)
_AUTO_CLASS = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_PEFT_TYPE = re.compile(r"[A-Z0-9_]{1,64}")


def check_config(path: Path, storage: str) -> dict[str, Any]:
    """Return the configuration when it may be stored; raise AdzError (exit code 3) otherwise.

    storage: `own` for a method that is not PEFT's, whose keys are its own business.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _refuse(f"it has {size} bytes, at most {MAX_BYTES} are read")
    try:
        config = parse_object(path.read_bytes())
    except ValueError as error:
        raise _refuse(str(error)) from error
    problem = _dangerous(config)
    if problem is None and storage == "peft":
        problem = _not_peft(config) or check_patterns(config)
    if problem:
        raise _refuse(problem)
    return config


def _dangerous(config: Mapping[str, Any]) -> str | None:
    for key, harmless in _DANGEROUS.items():
        if key in config and not any(_same(config[key], value) for value in harmless):
            return f"{key} may not be {str(config[key])[:60]!r}: it can load code or files"
    auto = config.get("auto_mapping")
    if auto is not None and not _is_library_class(auto):
        return f"auto_mapping may not be {str(auto)[:100]!r}: it can import code"
    return None


def _same(given: Any, harmless: Any) -> bool:
    # 0 == False to Python; to whoever reads the file they differ.
    return type(given) is type(harmless) and given == harmless


def _is_library_class(auto: Any) -> bool:
    return (
        isinstance(auto, dict)
        and set(auto) <= {"base_model_class", "parent_library", "unsloth_fixed"}
        and isinstance(auto.get("parent_library"), str)
        and isinstance(auto.get("base_model_class"), str)
        and _AUTO_MODULE.fullmatch(auto["parent_library"]) is not None
        and _AUTO_CLASS.fullmatch(auto["base_model_class"]) is not None
    )


def _not_peft(config: Mapping[str, Any]) -> str | None:
    kind = config.get("peft_type")
    if not isinstance(kind, str) or not _PEFT_TYPE.fullmatch(kind):
        return f"peft_type is {str(kind)[:60]!r}, not the name of a PEFT method"
    for key in ("r", "lora_alpha", "alpha"):
        # LoRA needs them; other methods may leave theirs open.
        optional = kind != "LORA" and config.get(key) is None
        if key in config and not optional and not _is_number(config[key]):
            return f"{key} is {str(config[key])[:60]!r}, not a finite number"
    if kind == "LORA":
        return _bad_ranks(config)
    return None


def _bad_ranks(config: Mapping[str, Any]) -> str | None:
    ranks = {"r": config.get("r"), **_entries(config, "rank_pattern")}
    for key, rank in ranks.items():
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            return f"{key} is {str(rank)[:60]!r}, not a rank from 1 to {MAX_RANK}"
    for key, alpha in _entries(config, "alpha_pattern").items():
        if not _is_number(alpha):
            return f"{key} is {str(alpha)[:60]!r}, not a finite number"
    alphas = {"lora_alpha": config.get("lora_alpha", 0), **_entries(config, "alpha_pattern")}
    for key, alpha in alphas.items():
        if abs(alpha) > MAX_ALPHA:
            return f"{key} is {str(alpha)[:60]!r}, at most {MAX_ALPHA:.0f} is applied"
    return None


def _entries(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A pattern's entries by their full name; a pattern that is no mapping is an entry itself."""
    pattern = config.get(key)
    if not isinstance(pattern, dict):
        return {} if pattern is None else {key: pattern}
    return {f"{key}.{name[:40]}": value for name, value in pattern.items()}


def _is_number(value: Any) -> bool:
    # An integer that no float holds would overflow wherever it is used.
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _refuse(reason: str) -> AdzError:
    return AdzError(
        f"adapter_config.json is refused: {reason}",
        "correct it in a copy of the adapter, if you trust where it came from",
        exit_code=EXIT_VERIFICATION,
    )
