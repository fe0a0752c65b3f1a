"""Importing an adapter: copy, say what it is, find its base, commit through the gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterhub.bases.adapter_files import adapter_facts
from adapterhub.bases.choose import choose_base
from adapterhub.bases.digests import check_same_base
from adapterhub.bases.verify import verify_base
from adapterhub.imports.peft_keys import KNOWN_KEYS
from adapterhub.imports.source import (
    check_source,
    copy_payload,
    method_name,
    read_adapter_config,
    read_exported,
)
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest, Version
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import check_name
from adapterhub.staging import home_staging, staging_folder


def import_adapter(
    registry: Registry, directory: Path, name: str, base: str | None, progress: Progress
) -> Version:
    """Store a copy of the adapter in `directory` as the next version of `name`.

    base: the base that it belongs to; None takes the one that its export names, else the only
    one there is, else leaves it unknown, so that it is neither served nor merged. The source
    is not touched and the imported bytes are not rewritten. Raises AdzError for what is not
    an adapter, does not fit its base, or does not pass a gate.
    """
    check_name(name)
    check_source(directory)
    with staging_folder(home_staging()) as staged:
        ignored = copy_payload(directory, staged)
        config = read_adapter_config(staged)
        exported = read_exported(directory, staged)
        link = _find_base(registry, base, exported, progress)
        manifest = _manifest(name, staged, config, exported, link)
        version = registry.commit(manifest, staged)
    if ignored:
        progress.note(f"ignored: {', '.join(ignored)}")
    unknown = sorted(set(config) - KNOWN_KEYS) if manifest.storage == "peft" else []
    if unknown:
        progress.warn(f"kept keys that PEFT 0.21 does not know: {', '.join(unknown)[:300]}")
    return version


def _find_base(
    registry: Registry, name: str | None, exported: Manifest | None, progress: Progress
) -> BaseLink:
    digests = exported.base.digests if exported else None
    record = _candidate(registry, name, digests)
    if record is None:
        made_for = f" {exported.base.name}" if exported and exported.base.name else ""
        progress.warn(
            f"its base{made_for} is not known here, so it is neither served nor merged: "
            "adz base add it, then import again with --base"
        )
        return BaseLink(status="unknown")
    verify_base(record)
    if digests is not None:
        for part in check_same_base(digests, record.digests):
            progress.warn(f"the {part} of {record.name} is another one than it was made with")
    return BaseLink(status="asserted", name=record.name, digests=record.digests)


def _candidate(
    registry: Registry, name: str | None, digests: BaseDigests | None
) -> BaseRecord | None:
    bases = registry.bases()
    if name is not None:
        return choose_base(registry, name)
    if digests is not None:
        same = [base for base in bases if base.digests.weights == digests.weights]
        return same[0] if same else None
    return bases[0] if len(bases) == 1 else None


def _manifest(
    name: str,
    staged: Path,
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
        adapter=adapter_facts(staged, config),
    )
