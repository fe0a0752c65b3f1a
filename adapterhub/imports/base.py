"""The base of an adapter that was made elsewhere: what is known of it, and from what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.bases.choose import choose_base
from adapterhub.bases.identity import describe_difference, why_not_same
from adapterhub.bases.verify import verify_base
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest
from adapterhub.protocols import Progress, Registry

UNKNOWN = "unknown"
"""What `--base` says to leave the base open."""


def find_base(
    registry: Registry,
    name: str | None,
    exported: Manifest | None,
    config: Mapping[str, Any],
    progress: Progress,
) -> BaseLink:
    """The base that an adapter is asserted to belong to; the gates compare names and shapes.

    name: what the user said; None takes the base that the adapter's own manifest identifies,
    else the one that was added from where its configuration says, else the only one there is.
    Raises AdzError for a base that changed, or that its manifest contradicts.
    """
    digests = exported.base.digests if exported else None
    if name == UNKNOWN:
        progress.warn(
            "its base is left open, so it is neither served nor merged: "
            "adz import NAME --base BASE says later which it is"
        )
        return BaseLink(status="unknown")
    record = _candidate(registry, name, digests, config)
    if record is None:
        made_for = f" {exported.base.name}" if exported and exported.base.name else ""
        progress.warn(
            f"its base{made_for} is not known here, so it is neither served nor merged: "
            "adz base add it, then adz import --base BASE says which it is"
        )
        return BaseLink(status="unknown")
    verify_base(record)
    if digests is not None:
        _compare(digests, record, progress)
    return BaseLink(status="asserted", name=record.name, digests=record.digests)


def _candidate(
    registry: Registry,
    name: str | None,
    digests: BaseDigests | None,
    config: Mapping[str, Any],
) -> BaseRecord | None:
    if name is not None:
        return choose_base(registry, name)
    bases = registry.bases()
    if digests is not None:
        same = [base for base in bases if base.digests.weights == digests.weights]
        return same[0] if same else None
    named = [base for base in bases if base.source == config.get("base_model_name_or_path")]
    if len(named) == 1:
        return named[0]
    return bases[0] if len(bases) == 1 else None


def _compare(digests: BaseDigests, record: BaseRecord, progress: Progress) -> None:
    reason = why_not_same(digests, record)
    if reason:
        raise AdzError(
            f"the adapter belongs to another base than {record.name}: {reason}",
            "use the base that it was made for",
            exit_code=EXIT_VERIFICATION,
        )
    if digests != record.digests:
        progress.warn(
            f"{record.name} is not all that it was made with: "
            f"{describe_difference(digests, record.digests)}"
        )
