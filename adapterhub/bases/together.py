"""References that are used together belong to one base: which one, and whether all do."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.bases.choose import base_or_version, choose_base
from adapterhub.bases.identity import check_version, why_not_version
from adapterhub.errors import usage_error
from adapterhub.manifest import BaseRecord, Version
from adapterhub.protocols import Registry


def resolve_together(
    registry: Registry, references: Sequence[str], base_name: str | None = None
) -> tuple[BaseRecord, dict[str, Version]]:
    """The base, and the version of each reference, in order; a base's name among them is none.

    Each version has passed the registry's gates as an adapter of that base then. Raises AdzError
    for an unknown name (with near ones), two bases, or a version that was made for another base
    or for an unknown one (exit code 3).
    """
    found = {name: base_or_version(registry, name) for name in references}
    versions = {name: one for name, one in found.items() if isinstance(one, Version)}
    wanted = (found.keys() - versions.keys()) | ({base_name} if base_name else set())
    if len(wanted) > 1:
        raise usage_error(
            f"{len(wanted)} bases are named: {', '.join(sorted(wanted))}", "name one of them"
        )
    base = _base_of(registry, next(iter(wanted), None), list(versions.values()))
    for version in versions.values():
        check_version(version, base)
        registry.admit(version, base)
    return base, versions


def _base_of(registry: Registry, name: str | None, versions: Sequence[Version]) -> BaseRecord:
    """The named base, or the one that the first version was made for, or the only one."""
    if name is None and versions:
        digests = versions[0].manifest.base.digests
        bases = registry.bases()
        made_for = [base for base in bases if base.digests == digests]
        usable = made_for or [base for base in bases if why_not_version(versions[0], base) is None]
        if usable:
            return usable[0]
    return choose_base(registry, name)
