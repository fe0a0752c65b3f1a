"""References that are used together belong to one base: which one, and whether all do."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.bases.choose import choose_base
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.manifest import BaseRecord, Version
from adapterhub.protocols import Registry


def resolve_together(
    registry: Registry, references: Sequence[str], base_name: str | None = None
) -> tuple[BaseRecord, dict[str, Version]]:
    """The base, and the version of each reference, in order; a base's name among them is none.

    Raises AdzError for an unknown name (with near ones), two bases, or a version that was made
    for another base (exit code 3) or for an unknown one.
    """
    known = {base.name for base in registry.bases()}
    wanted = {name for name in references if name in known} | ({base_name} if base_name else set())
    if len(wanted) > 1:
        raise usage_error(
            f"{len(wanted)} bases are named: {', '.join(sorted(wanted))}", "name one of them"
        )
    versions = {name: registry.resolve(name) for name in references if name not in known}
    base = _base_of(registry, next(iter(wanted), None), list(versions.values()))
    for name, version in versions.items():
        _check_base(name, version, base)
    return base, versions


def _base_of(registry: Registry, name: str | None, versions: Sequence[Version]) -> BaseRecord:
    """The named base, or the one that the first version was made for, or the only one."""
    if name is None and versions:
        digests = versions[0].manifest.base.digests
        made_for = [base for base in registry.bases() if base.digests == digests]
        if made_for:
            return made_for[0]
    return choose_base(registry, name)


def _check_base(name: str, version: Version, base: BaseRecord) -> None:
    digests = version.manifest.base.digests
    if digests is None:
        raise AdzError(
            f"the base of {name} is not known", f"import it again with --base {base.name}"
        )
    if (digests.weights, digests.arch) != (base.digests.weights, base.digests.arch):
        other = version.manifest.base.name or "another base"
        raise AdzError(
            f"{name} was made for {other}, not for {base.name}",
            "name adapters of one base",
            exit_code=EXIT_VERIFICATION,
        )
