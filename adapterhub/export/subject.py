"""What an export is about: a version with its base, or the base alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterhub.bases.identity import template_warning
from adapterhub.bases.together import resolve_together
from adapterhub.bases.verify import verify_base
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseRecord, Version
from adapterhub.protocols import Progress, Registry


@dataclass(frozen=True, slots=True)
class Subject:
    """`version` is None, and so is its `directory`, where the base itself is meant."""

    base: BaseRecord
    version: Version | None
    directory: Path | None

    @property
    def reference(self) -> str:
        """`name@number`, or the base's name."""
        return self.version.reference if self.version else self.base.name

    def require_version(self) -> tuple[Version, Path]:
        """The version and its directory; AdzError where a base was named."""
        if self.version is None or self.directory is None:
            raise AdzError(f"{self.base.name} is a base", "name an adapter")
        return self.version, self.directory


def find_subject(registry: Registry, reference: str, progress: Progress) -> Subject:
    """Resolve a reference or a base's name; an AdzError where the base is unknown or changed."""
    base, versions = resolve_together(registry, [reference])
    with progress.task(f"verifying {base.name}", None):
        verify_base(base)
    version = versions.get(reference)
    warning = template_warning(version, base) if version else None
    if warning:
        progress.warn(warning)
    return Subject(base, version, registry.path(version) if version else None)
