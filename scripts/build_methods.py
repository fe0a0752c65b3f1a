#!/usr/bin/env python3
"""Write plugins/adapterhub_peft/schema.json: every type of the installed PEFT and its options.

scripts/build_methods.py            after a new release of PEFT
scripts/build_methods.py --check    fail when the file is not what the installed PEFT says
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import re
import sys
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

import peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING

SCHEMA = Path(__file__).resolve().parent.parent / "plugins" / "adapterhub_peft" / "schema.json"

# What the base, the layers or the version say, what names code or files of this machine, and
# what acts on other things than one adapter's weights.
LEFT_OUT = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "fan_in_fan_out", "megatron_config", "megatron_core",
    "runtime_config", "runtime_offload_base_weight", "tokenizer_name_or_path",
    "tokenizer_kwargs", "token_dim", "num_transformer_submodules", "num_attention_heads",
    "num_layers", "prompt_tuning_init_state_dict_path", "prompt_tuning_init_text",
    "progressbar", "total_step",
    "alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config", "lora_ga_config",
    "layer_replication", "monteclora_config", "qalora_group_size", "use_bdlora", "use_qalora",
    "velora_config", "auxiliary_loss_weight",
}  # fmt: skip
# AdaLoRA inherits LoRA's options and has no use for these.
ONLY_INHERITED = {
    "ADALORA": {
        "r", "eva_config", "ensure_weight_tying", "init_lora_weights", "lora_bias", "loftq_config",
        "target_parameters", "trainable_token_indices", "use_dora", "use_rslora",
    }
}  # fmt: skip
# These values of an option need one of those.
UNUSABLE = {"corda", "lora_ga", "TEXT"}
SHORT = {
    "target_modules": "targets",
    "exclude_modules": "exclude",
    "feedforward_modules": "feedforward",
    "target_parameters": "parameters",
    "num_virtual_tokens": "tokens",
    "init_lora_weights": "init",
    "init_weights": "init",
    "prompt_tuning_init": "init",
    "eva_config": "eva",
    "loftq_config": "loftq",
}
_PLAIN: dict[Any, str] = {int: "int", float: "float", bool: "bool", str: "str", type(None): "null"}


def schema() -> dict[str, Any]:
    """Every type by its name: the configuration's class, and its options by our names."""
    kinds = {
        kind.value: {
            "class": config.__name__,
            "options": _options(config, _prefixes(kind), ONLY_INHERITED.get(kind.value, set())),
        }
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }
    return {"peft": ".".join(peft.__version__.split(".")[:2]), "types": dict(sorted(kinds.items()))}


def _prefixes(kind: Any) -> tuple[str, ...]:
    """What the options of a type begin with needlessly: `boft_block_size`."""
    own = kind.value.lower().replace("_", "") + "_"
    return tuple({own, PEFT_TYPE_TO_PREFIX_MAPPING.get(kind, own), "lora_", "encoder_"})


def _options(
    config: type, prefixes: tuple[str, ...], unwanted: Collection[str] = ()
) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    taken = set(hints)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.name in LEFT_OUT or field.name in unwanted:
            continue
        kind = _kind(hints[field.name], field)
        name = _name(field.name, prefixes, taken)
        # PEFT's tests turn the initialisation off; a user has no use for it.
        if name.startswith("init") and all(m in ("bool", "null") for m in _members(kind)):
            continue
        if name in found:
            raise SystemExit(f"{config.__name__}: two options are called {name}")
        found[name] = {"field": field.name, "type": kind, "default": _default(field)}
        help_text = _first_sentence(field.metadata.get("help"))
        if help_text:
            found[name]["help"] = help_text
    return found


def _name(field: str, prefixes: tuple[str, ...], taken: set[str]) -> str:
    if field in SHORT:
        return SHORT[field]
    for prefix in sorted(prefixes, key=len, reverse=True):
        # `lora_bias` is another option than `bias`.
        if field.startswith(prefix) and field.removeprefix(prefix) not in taken:
            return field.removeprefix(prefix)
    return field


def _kind(hint: Any, field: Any) -> Any:
    """An annotation as JSON: a name, a list of alternatives, or a mapping that says its kind."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        members = [m for a in arguments for m in _members(_kind(a, field))]
        return [m for i, m in enumerate(members) if m not in members[:i]]
    if origin is typing.Literal:
        return {"choice": [a for a in arguments if a not in UNUSABLE]}
    if origin is list or hint is list:
        return {"list": _kind(arguments[0], field) if arguments else "any"}
    if origin is dict or hint is dict:
        return {"dict": _kind(arguments[1], field) if arguments else "any"}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"choice": [member.value for member in hint if member.value not in UNUSABLE]}
    if dataclasses.is_dataclass(hint):
        return {"class": hint.__name__, "options": _options(hint, ())}
    if origin is tuple:
        return {"list": _kind(arguments[0], field)}
    raise SystemExit(f"{field.name}: no kind for {hint}")


def _members(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]


def _default(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return None if dataclasses.is_dataclass(value) else value
    value = None if field.default is dataclasses.MISSING else field.default
    return value.value if isinstance(value, enum.Enum) else value


def _first_sentence(text: Any) -> str:
    # One of PEFT's is a tuple by mistake.
    words = " ".join(str(text[0] if isinstance(text, tuple) else text or "").split())
    return re.split(r"(?<=[a-z)'`])\. ", words)[0].strip(" .")


def main() -> None:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    if not arguments.check:
        SCHEMA.write_text(text, encoding="utf-8")
    elif SCHEMA.read_text(encoding="utf-8") != text:
        sys.exit(
            f"{SCHEMA.name} is not what PEFT {peft.__version__} says: run scripts/build_methods.py"
        )


if __name__ == "__main__":
    main()
