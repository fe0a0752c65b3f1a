"""A version as a plain directory of its own, for whoever has no registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from adapterhub.cards import CARD, model_card
from adapterhub.errors import usage_error
from adapterhub.manifest import Manifest, Version
from adapterhub.protocols import Registry
from adapterhub.staging import staging_folder

MANIFEST = "manifest.json"


def manifest_text(manifest: Manifest) -> str:
    """What `manifest.json` of an exported directory holds: always the same for a version."""
    value = manifest.model_dump(mode="json", exclude_none=True)
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def export_version(
    registry: Registry, reference: str, directory: Path, *, with_artifacts: bool = False
) -> Version:
    """Write the version into `directory`, which PEFT and vLLM open, and return it.

    `manifest.json` beside the adapter says what it is and how it was made; so does a card for
    people, README.md, where the adapter has none of its own. Raises a usage
    error when `directory` holds something already; it appears whole or not at all.
    """
    version = registry.resolve(reference)
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise usage_error(f"{directory} is not a directory")
    if directory.is_dir() and any(directory.iterdir()):
        raise usage_error(f"{directory} is not empty", "give a new directory")
    with staging_folder(directory.parent, f".{directory.name}.adz-") as staging:
        made = staging / "export"
        _write(registry, version, made, with_artifacts=with_artifacts)
        made.rename(directory)
    return version


def _write(registry: Registry, version: Version, made: Path, *, with_artifacts: bool) -> None:
    # The view's files are read-only; what a user exports is the user's to change.
    shutil.copytree(registry.path(version), made, copy_function=shutil.copyfile)
    if CARD not in version.manifest.files:
        (made / CARD).write_text(model_card(registry, version), encoding="utf-8")
    (made / MANIFEST).write_text(manifest_text(version.manifest), encoding="utf-8")
    if with_artifacts:
        registry.artifacts(version, made / "artifacts")
