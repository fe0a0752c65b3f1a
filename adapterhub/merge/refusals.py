"""Adapters that are more than their factors: why they are not merged, and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.reference import is_directory_reference

# Options whose update is no B A, though the base's weights show what it is. `adz convert` reads
# them, and is named in the error.
_CONVERTIBLE = {
    "use_dora": "is DoRA, whose update depends on the base's weights",
    "kasa_config": "is KaSA, which cuts the base's weights",
    "use_qalora": "is QALoRA, which pools its inputs",
    "use_bdlora": "is a block-diagonal LoRA",
}
# Options that no LoRA on linear layers and embeddings can stand for, and the way out. `{}` is
# the option's value.
_REFUSED = {
    "lora_bias": ("has trained biases (lora_bias)", "train it without"),
    "modules_to_save": (
        "holds whole modules ({}), and their change is not known without the base",
        "train it with them in target_modules instead",
    ),
    "trainable_token_indices": (
        "trains the embeddings of single tokens",
        "train it with the embedding in target_modules instead",
    ),
    "target_parameters": ("adapts bare parameters ({})", "train it on modules instead"),
    "layer_replication": ("replicates layers of the base", "train it without"),
    "alora_invocation_tokens": (
        "is an activated LoRA (aLoRA), which acts after its tokens only",
        "serve it as it is",
    ),
    "arrow_config": ("routes among adapters for every token (Arrow)", "serve it as it is"),
}
# These take a part of the base's weights away and train it. PEFT computes the first two again
# when it loads the adapter.
_REPEATED_INITS = ("pissa", "olora")
_OTHER_INITS = ("pissa_niter", "corda", "loftq", "lora_ga")


def check_plain(label: str, config: Mapping[str, Any]) -> None:
    """Raise AdzError for a configuration whose update is not the product of its factors."""
    kind = config.get("peft_type")
    if kind is None:
        raise AdzError(
            f"{label} is no LoRA adapter: its method stores it in a form of its own",
            "merge adapters of PEFT's methods; docs/methods.md says which become a LoRA",
        )
    if kind != "LORA":
        raise AdzError(f"{label} is no LoRA adapter but {kind}", _convert(label, config))
    for option, reason in _CONVERTIBLE.items():
        if config.get(option):
            raise AdzError(f"{label} {reason}", _convert(label, config))
    for option, (reason, hint) in _REFUSED.items():
        value = config.get(option)
        if value:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            raise AdzError(f"{label} {reason.format(text)}", hint)
    if config.get("bias", "none") != "none":
        raise AdzError(f"{label} has trained biases (bias={config['bias']})", "train it without")


def check_base_unchanged(label: str, config: Mapping[str, Any]) -> None:
    """Raise AdzError for an adapter that began as a part of the base's weights."""
    init = config.get("init_lora_weights")
    name = init.lower() if isinstance(init, str) else ""
    if name.startswith((*_REPEATED_INITS, *_OTHER_INITS)):
        known = name.startswith(_REPEATED_INITS) and not name.startswith(_OTHER_INITS)
        raise AdzError(
            f"{label} changes the base's weights (init_lora_weights={init})",
            _convert(label, config) + ("" if known else " --initial DIR"),
        )


def _convert(label: str, config: Mapping[str, Any]) -> str:
    # Twice the rank holds the update of PiSSA exactly, and much of the others.
    rank = config.get("r")
    rank = 2 * rank if type(rank) is int and 0 < rank < 2**10 else 32
    base = " --base NAME" if is_directory_reference(label) else ""
    return f"adz convert {label} --to lora --rank {rank}{base}"
