"""Who is evaluated: a base and versions that were made for it."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.bases.choose import choose_base
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.evaluate.questions import Subject
from adapterhub.manifest import BaseRecord, Version
from adapterhub.protocols import Registry


def choose_subjects(
    registry: Registry, references: Sequence[str], base_name: str | None
) -> tuple[BaseRecord, list[Subject]]:
    """The base, and the table's rows: the base first, then each version once, as given.

    `references` may hold the base's name. Raises AdzError for an unknown name (with near
    ones), two bases, or a version that was made for another base (exit code 3).
    """
    known = {base.name for base in registry.bases()}
    names = list(dict.fromkeys(references))
    wanted = {name for name in names if name in known} | ({base_name} if base_name else set())
    if len(wanted) > 1:
        raise usage_error(f"{len(wanted)} bases are named", "one evaluation has one base")
    versions = [(name, registry.resolve(name)) for name in names if name not in known]
    base = _base_of(registry, next(iter(wanted), None), [version for _, version in versions])
    for name, version in versions:
        _check_base(name, version, base)
    return base, [
        Subject(base.name, base.name, None),
        *(Subject(name, version.reference, version) for name, version in versions),
    ]


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
            "evaluate adapters of one base together",
            exit_code=EXIT_VERIFICATION,
        )
