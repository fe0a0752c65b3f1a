"""From a request's `model` to the base or to a version of an adapter, at each request anew."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from http import HTTPStatus
from typing import Literal

from adapterhub.bases.identity import template_warning, why_not_version
from adapterhub.errors import EXIT_USAGE, EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseRecord, Version
from adapterhub.policy import Policy, load_policy
from adapterhub.protocols import Registry
from adapterhub.reference import DERIVED, LATEST, parse_reference
from adapterhub.serve.errors import RequestError

# team/name, '@', and a digest with its prefix: the text of an error stays short.
_LONGEST = 256
_PAGE = 1000

WhyNot = Callable[[Version], str | None]
"""Why an engine does not serve a version, or None when it does."""

Converts = Callable[[Version], bool]
"""Whether an engine answers with the conversion of a version."""


def why_not_servable(version: Version, base: BaseRecord) -> str | None:
    """Why no engine may answer with `version` over `base`; None when nothing speaks against it.

    An engine adds its own limits (rank, method) to this.
    """
    reason = why_not_version(version, base)
    if reason and version.manifest.base.digests is None:
        return f"{reason}; if it is this one: adz import {version.reference} --base {base.name}"
    return reason


def servable_versions(
    registry: Registry,
    base: BaseRecord,
    *,
    method: str | None = None,
    scope: Literal["latest", "live"] = "live",
    sort: str = "name",
    reverse: bool = False,
) -> Iterator[Version]:
    """The versions that may be served over `base` in the order of a listing; those of other bases
    and those that are not asked for are not read."""
    for offset in itertools.count(0, _PAGE):
        page = registry.listing(
            base=base.name, method=method, scope=scope,
            sort=sort, reverse=reverse, limit=_PAGE, offset=offset,
        )  # fmt: skip
        for listed in page:
            version = registry.resolve(f"{listed.name}@{listed.version}")
            if why_not_servable(version, base) is None:
                yield version
        if len(page) < _PAGE:
            return


def template_notes(registry: Registry, base: BaseRecord) -> Iterator[str]:
    """A line where servable adapters were made with another chat template than the base's."""
    versions = servable_versions(registry, base)
    warnings = [warning for v in versions if (warning := template_warning(v, base))]
    if warnings:
        more = f", and {len(warnings) - 1} more like it" if len(warnings) > 1 else ""
        yield warnings[0] + more


def resolve_model(
    registry: Registry, base: BaseRecord, model: object, why_not: WhyNot, key: str | None = None
) -> Version | None:
    """The version that answers a request, or None for the base itself.

    key: who asks (`sticky.sticky_key`), for an alias that is split over several versions.
    Raises RequestError: 400 when `model` is not given or not a reference, 404 when there is no
    such name, 422 with the reason when the version may not or cannot be served.
    """
    if not isinstance(model, str) or not model:
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            f"the request has no model: give {base.name} or the reference of an adapter",
        )
    if model == base.name:
        return None
    version = _find(registry, base, model, key)
    reason = why_not(version) or _why_not_signed(registry, version)
    if reason:
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
    return version


def _why_not_signed(registry: Registry, version: Version) -> str | None:
    """The policy holds here too: a version may have come in before it, or been made here."""
    try:
        load_policy().check_signed(registry, version)
    except AdzError as error:
        return str(error)
    return None


def _find(registry: Registry, base: BaseRecord, model: str, key: str | None) -> Version:
    if len(model) > _LONGEST:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"a model of {len(model)} characters")
    try:
        parse_reference(model)
    except AdzError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error
    try:
        return registry.resolve(model, key)
    except AdzError as error:
        if error.exit_code == EXIT_USAGE:
            raise RequestError(HTTPStatus.NOT_FOUND, _not_found(error, base, model)) from error
        status = (
            HTTPStatus.UNPROCESSABLE_ENTITY
            if error.exit_code == EXIT_VERIFICATION
            else HTTPStatus.INTERNAL_SERVER_ERROR
        )
        raise RequestError(status, str(error)) from error


def _not_found(error: AdzError, base: BaseRecord, model: str) -> str:
    """The registry offers the nearest adapters; the base is a model of this server too."""
    near = get_close_matches(model, [base.name], cutoff=0.6)
    return str(error) + (f"; the base is called {base.name}" if near else "")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One line of `/v1/models`: a reference and the version it means now (None: the base).
    converted: its conversion to LoRA answers, made at the first request."""

    id: str
    version: Version | None
    converted: bool = False


def _converts_none(version: Version) -> bool:
    return False


def list_models(
    registry: Registry, base: BaseRecord, why_not: WhyNot, converts: Converts = _converts_none
) -> list[ServedModel]:
    """The base and every reference that would be answered now.

    A name's highest version stands under the name, an older one as `name@3`, and each alias
    as `name@alias`.
    """
    versions = registry.versions()
    highest = {version.name: version.number for version in versions}
    listed = [ServedModel(base.name, None)]
    for version in versions:
        # What a request made is found by what was asked for, not by its name.
        if version.name.startswith(f"{DERIVED}/"):
            continue
        if why_not(version) is None and _why_not_signed(registry, version) is None:
            newest = version.number == highest[version.name]
            converted = converts(version)
            listed += [ServedModel(id, version, converted) for id in _references(version, newest)]
    return listed


class ModelList:
    """`list_models` of one server, made anew only after the registry, the base or the policy
    changed: clients ask for it again and again."""

    def __init__(self) -> None:
        self._known: tuple[tuple[int, BaseRecord, Policy], list[ServedModel]] | None = None

    def read(
        self, registry: Registry, base: BaseRecord, why_not: WhyNot, converts: Converts
    ) -> list[ServedModel]:
        """What would be answered now. why_not, converts: the same ones each time."""
        policy = load_policy()
        # Taken before the versions are read: what changes meanwhile is seen the next time.
        stamp = registry.revision(), base, policy
        # The files of the keys that a policy names may change without it.
        if self._known is None or self._known[0] != stamp or policy.signatures:
            self._known = stamp, list_models(registry, base, why_not, converts)
        return self._known[1]


def _references(version: Version, newest: bool) -> Iterator[str]:
    yield version.name if newest else version.reference
    yield from (f"{version.name}@{alias}" for alias in version.aliases if alias != LATEST)
