"""What is converted: a version or a directory, its configuration, and its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub import specs
from adapterhub.bases.choose import choose_base
from adapterhub.bases.together import resolve_together
from adapterhub.bases.verify import verify_base
from adapterhub.errors import AdzError, usage_error
from adapterhub.imports.source import check_source, method_name, read_adapter_config
from adapterhub.manifest import BaseLink, BaseRecord, Version
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Registry
from adapterhub.reference import is_directory_reference

_SERVE = "serve the adapter as it is"
# What no update of a weight can say, and why. `{}` is the option's value.
_REFUSED_OPTIONS = {
    "lora_bias": "has trained biases (lora_bias), and a LoRA has none",
    "alora_invocation_tokens": "is an activated LoRA (aLoRA): it acts after its tokens {} only",
    "target_parameters": "adapts bare parameters ({}), which a plain LoRA does not reach",
    "layer_replication": "replicates layers of the base ({})",
    "trainable_token_indices": "trains embeddings of single tokens",
    "arrow_config": "chooses among several adapters for every token (Arrow)",
}
_PROMPTS = frozenset({
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING",
    "PREFIX_TUNING", "PROMPT_TUNING",
})  # fmt: skip
# These take a part of the base's weights away and train it. PEFT computes it again when it
# loads the adapter, which gives the same only for the first two.
_REPEATED_INITS = ("pissa", "olora")
_OTHER_INITS = ("pissa_niter", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class Source:
    """The adapter that is converted. `version` is None for a directory, `record` where its base
    is not known."""

    label: str
    directory: Path
    config: Mapping[str, Any]
    version: Version | None
    record: BaseRecord | None

    @property
    def method(self) -> str:
        """The method in our words."""
        return self.version.manifest.method if self.version else method_name(self.config)

    @property
    def link(self) -> BaseLink:
        """What the result's manifest says of its base."""
        if self.version:
            return self.version.manifest.base
        if self.record is None:
            return BaseLink(status="unknown")
        return BaseLink(status="asserted", name=self.record.name, digests=self.record.digests)


def find_source(reference: str, base: str | None, registry: Registry) -> Source:
    """Resolve a reference or open a directory; AdzError for what is not there."""
    if is_directory_reference(reference):
        directory = Path(reference).expanduser()
        check_source(directory)
        record = choose_base(registry, base) if base else None
        if record:
            verify_base(record)
        return Source(reference, directory, read_adapter_config(directory), None, record)
    if base is not None:
        raise usage_error("--base is for a directory", f"{reference} knows its base")
    version = registry.resolve(reference)
    record, _ = resolve_together(registry, [reference])
    if version.manifest.storage != "peft":
        raise AdzError(
            f"{version.reference} is no adapter of PEFT ({version.manifest.method})",
            "docs/methods.md says which methods become a LoRA; adz serve --engine transformers "
            "serves the others as they are",
        )
    verify_base(record)
    directory = registry.path(version)
    return Source(version.reference, directory, read_adapter_config(directory), version, record)


def find_initial(reference: str, registry: Registry) -> Source:
    """The adapter as it was before training; a directory needs no base."""
    return find_source(reference, None, registry)


def may_convert(version: Version) -> bool:
    """Whether a LoRA may stand for a version, as far as its manifest tells."""
    manifest = version.manifest
    ours = load_plugins().components(specs.Method).get(manifest.method)
    convertible = ours.convertible if ours else manifest.method.upper() not in _PROMPTS
    return convertible and manifest.storage == "peft"


def check_convertible(source: Source, *, has_initial: bool) -> None:
    """Raise AdzError, with the reason, for an adapter that no LoRA can stand for."""
    config = source.config
    kind = str(config.get("peft_type"))
    if kind in _PROMPTS:
        raise AdzError(
            f"{source.label} ({source.method}) adds virtual tokens and changes no weight", _SERVE
        )
    for option, reason in _REFUSED_OPTIONS.items():
        if config.get(option):
            raise AdzError(f"{source.label} {reason.format(config[option])}", _SERVE)
    if config.get("bias", "none") != "none":
        raise AdzError(
            f"{source.label} has trained biases (bias={config['bias']}), and a LoRA has none",
            _SERVE,
        )
    init = base_changing_init(config)
    if has_initial and init is None:
        raise usage_error(
            f"{source.label} leaves the base's weights as they are", "leave --initial away"
        )
    if init and not has_initial and init not in _REPEATED_INITS:
        raise AdzError(
            f"{source.label} began as a part of the base's weights (init_lora_weights={init}), "
            "which cannot be computed again",
            "give the adapter as it was before training: --initial DIR",
        )


def base_changing_init(config: Mapping[str, Any]) -> str | None:
    """The name of an initialisation that takes its factors out of the base's weights."""
    init = config.get("init_lora_weights")
    name = init.lower() if isinstance(init, str) else ""
    return name if name.startswith((*_REPEATED_INITS, *_OTHER_INITS)) else None
