"""What every payload must pass before it is stored: trained, merged, imported and pulled ones.

A refusal names the file, the rule and what to do. files.py looks at the files, config.py and
patterns.py at the configuration, tensors.py, values.py and fit.py at the weights.
"""

from __future__ import annotations

from pathlib import Path

from adapterhub import specs
from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.bases.modules import BaseModules
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseRecord, Manifest
from adapterhub.plugins import load_plugins
from adapterhub_registry.gates.config import check_config
from adapterhub_registry.gates.files import check_files
from adapterhub_registry.gates.tensors import check_tensors

RULES = 1
"""Counts up when a rule becomes stricter, so that what passed before is looked at again."""


def check_payload(directory: Path, manifest: Manifest, base: BaseRecord | None) -> None:
    """Refuse a payload that may not be stored, with an AdzError (exit code 3).

    directory: the payload's files. base: the record of the manifest's base; None where it is
    not known, and then the tensors are not compared with a base.
    """
    check_files(directory)
    _check_storage(manifest)
    check_contents(directory, manifest, base)


def check_contents(directory: Path, manifest: Manifest, base: BaseRecord | None) -> None:
    """The same for the configuration and the weights, whatever else lies in `directory`."""
    config = check_config(directory / CONFIG, manifest.storage)
    modules = BaseModules.read(base) if base else None
    check_tensors(directory / WEIGHTS, config, manifest, base.name if base else "", modules)


def _check_storage(manifest: Manifest) -> None:
    """A manifest from elsewhere may not say `own` of what PEFT and vLLM open: fewer rules would
    hold for it."""
    distribution, _, name = manifest.method.rpartition(":")
    known = {
        provided.component.storage
        for provided in load_plugins().provided(specs.Method)
        if isinstance(provided.component, specs.Method)
        and provided.component.name == name
        and distribution in ("", provided.plugin.distribution)
    }
    if known and manifest.storage not in known:
        raise AdzError(
            f"the manifest is refused: it says that {manifest.method} is stored as "
            f"{manifest.storage}, it is {' or '.join(sorted(known))}",
            exit_code=EXIT_VERIFICATION,
        )
