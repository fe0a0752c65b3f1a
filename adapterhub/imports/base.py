"""The base of an adapter that was made elsewhere: what is known of it, and from what."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from adapterhub.bases.choose import choose_base
from adapterhub.bases.fit import first_misfit
from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.identity import describe_difference, why_not_same
from adapterhub.bases.modules import BaseModules, split_key
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
    tensors: Mapping[str, TensorInfo],
    progress: Progress,
) -> BaseLink:
    """The base that an adapter is asserted to belong to; the gates compare names and shapes.

    name: what the user said; None takes the base that the adapter's own manifest identifies,
    else the one that was added from where its configuration says, else the only one there is.
    tensors: the header of its weights; where none of these tells, the bases that they fit are
    named, and none is taken: two trainings of one architecture fit alike. Raises AdzError for a
    base that changed, or that its manifest contradicts.
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
        fitting = [] if digests is not None else _fitting(registry, config, tensors)
        progress.warn(
            f"its base{made_for} is not known here, so it is neither served nor merged: "
            f"{_way_on(fitting)}"
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


def _fitting(
    registry: Registry, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> list[str]:
    """The bases with a module for every tensor."""
    keys = {name: key for name in tensors if (key := split_key(name)) is not None}
    found = []
    for record in registry.bases():
        # One that is gone or spoilt is no answer; 'adz fsck' and 'adz doctor' speak of it.
        with suppress(AdzError, OSError):
            if first_misfit(config, tensors, keys, BaseModules.read(record)) is None:
                found.append(record.name)
    return found


def _way_on(fitting: list[str]) -> str:
    if not fitting:
        return "adz base add it, then adz import NAME --base BASE says which it is"
    if len(fitting) == 1:
        return (
            f"of the bases only {fitting[0]} fits its names and shapes; if it was made for that, "
            f"adz import NAME --base {fitting[0]} says so"
        )
    return f"{', '.join(fitting)} fit it: adz import NAME --base BASE says which it is"


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
