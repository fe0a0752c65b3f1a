"""The two things that are compared: a version, or a PEFT directory that nobody stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterhub.imports.source import check_source, read_adapter_config
from adapterhub.manifest import Version
from adapterhub.protocols import Registry
from adapterhub.reference import is_directory_reference


@dataclass(frozen=True, slots=True)
class Side:
    """One of them. version: None for a directory. config: its adapter_config.json.
    attestations: as the registry returns them."""

    label: str
    directory: Path
    config: Mapping[str, Any]
    version: Version | None = None
    attestations: list[Mapping[str, Any]] = field(default_factory=list)


def open_side(registry: Registry, text: str) -> Side:
    """What `text`, a reference or a path, means. Raises AdzError for an unknown reference and
    for a directory without an adapter."""
    if is_directory_reference(text):
        directory = Path(text).expanduser()
        check_source(directory)
        return Side(text, directory, read_adapter_config(directory))
    version = registry.resolve(text)
    directory = registry.path(version)
    config = read_adapter_config(directory)
    found = registry.attestations(version)
    return Side(version.reference, directory, config, version, found)
