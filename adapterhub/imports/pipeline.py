"""Importing an adapter: copy, say what it is, find its base, commit through the gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterhub.bases.adapter_files import WEIGHTS, adapter_facts
from adapterhub.bases.headers import TensorInfo, read_header
from adapterhub.imports.base import find_base
from adapterhub.imports.effect import idle_modules
from adapterhub.imports.peft_keys import KNOWN_KEYS
from adapterhub.imports.pickles import convert_pickle
from adapterhub.imports.source import (
    check_source,
    copy_payload,
    method_name,
    read_adapter_config,
    read_exported,
)
from adapterhub.manifest import BaseLink, Manifest, Version
from adapterhub.policy import load_policy
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import check_new_name
from adapterhub.staging import home_staging, staging_folder


def import_adapter(
    registry: Registry,
    directory: Path,
    name: str,
    base: str | None,
    progress: Progress,
    *,
    convert: bool = False,
    recipe: Mapping[str, Any] | None = None,
) -> Version:
    """Store a copy of the adapter in `directory` as the next version of `name`.

    base: the base that it belongs to, or `unknown`; None takes the one that its export names,
    the one that its configuration names, or the only one there is, else leaves it unknown, so
    that it is neither served nor merged, and says which bases it fits. convert: whether
    pickled weights are read (in a process of its own) and stored as safetensors; nothing else
    that is imported is rewritten. recipe: where it came from, kept where it does not say how it
    was made. The source is not touched. Raises AdzError for what is not an adapter, does not
    fit its base, or does not pass
    a gate.
    """
    load_policy().check_unsigned(check_new_name(name))
    pickle = check_source(directory, convert=convert)
    with staging_folder(home_staging()) as staged:
        ignored = copy_payload(directory, staged)
        if pickle is not None:
            convert_pickle(pickle, staged, progress)
        config = read_adapter_config(staged)
        exported = read_exported(directory, staged)
        tensors = read_header(staged / WEIGHTS)
        link = find_base(registry, base, exported, config, tensors, progress)
        manifest = _manifest(name, tensors, config, exported, link)
        if recipe and not manifest.recipe:
            manifest = manifest.model_copy(update={"recipe": dict(recipe)})
        version = registry.commit(manifest, staged)
        idle, modules = idle_modules(staged / WEIGHTS, tensors)
    if idle:
        progress.warn(f"{idle} of its {modules} modules change nothing: their updates are zero")
    _tell(registry, version, ignored, config, progress)
    return version


def _tell(
    registry: Registry,
    version: Version,
    ignored: list[str],
    config: dict[str, Any],
    progress: Progress,
) -> None:
    """What the user may want to know of what was stored."""
    if ignored:
        progress.note(f"ignored: {', '.join(ignored)}")
    unknown = sorted(set(config) - KNOWN_KEYS) if version.manifest.storage == "peft" else []
    if unknown:
        progress.warn(f"kept keys that PEFT 0.21 does not know: {', '.join(unknown)[:300]}")
    twins = [v for v in registry.same_payload(version.manifest.payload) if v != version]
    if twins:
        progress.note(f"{twins[0].reference} holds the same files")


def _manifest(
    name: str,
    tensors: Mapping[str, TensorInfo],
    config: dict[str, Any],
    exported: Manifest | None,
    link: BaseLink,
) -> Manifest:
    if exported is not None:
        return exported.model_copy(
            update={
                "name": name,
                "version": 0,
                "made_by": "import",
                "base": link,
                "created": "",
                "files": {},
                "artifacts": {},
                "payload": "",
            }
        )
    return Manifest(
        name=name,
        method=method_name(config),
        made_by="import",
        base=link,
        adapter=adapter_facts(tensors, config),
    )
