"""What an engine asks: the version that answers, also where it has to be made first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TypeVar

from adapterhub.derived.builds import Builds, come_again
from adapterhub.derived.wanted import Wanted, find, is_derived, wanted_conversion, wanted_merge
from adapterhub.errors import AdzError
from adapterhub.expression import is_expression, parse_expression
from adapterhub.manifest import BaseRecord, Version
from adapterhub.protocols import Derivations, Registry
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import current_request
from adapterhub.serve.models import WhyNot, resolve_model, why_not_servable

T = TypeVar("T")

ERROR_HEADER = "x-adz-relative-error"
"""The header of an answer by a version that was made for a request: what was lost."""
# Conversion loads the base in float32, and a second time where a part is taken out of it.
_FLOAT_BYTES = 4
_COPIES = 2
_NAMES_KEPT = 4096

_parse = lru_cache(maxsize=1024)(parse_expression)


class NotMadeError(Exception):
    """The version that answers is not there yet. reason: why it is needed, for a refusal.
    base_bytes: memory to make it."""

    def __init__(self, wanted: Wanted, reason: str, base_bytes: int) -> None:
        super().__init__(wanted.name)
        self.wanted = wanted
        self.reason = reason
        self.base_bytes = base_bytes


class Derived:
    """`resolve` is called in any one thread, the rest on the event loop.

    most_rank: that the engine takes. only_converted: why the engine serves a version as a LoRA
    only, None where it serves it as it is.
    """

    def __init__(self, settings: Derivations, most_rank: int, only_converted: WhyNot) -> None:
        self._settings = settings
        self._most_rank = most_rank
        self._only_converted = only_converted
        self._builds = Builds(settings)
        # Names, the last used one last.
        self._used: dict[str, None] = {}

    def converts(self, version: Version) -> bool:
        """Whether a request for `version` is answered by its conversion."""
        return self._settings.conversions and self._only_converted(version) is not None

    def why_not(self, version: Version, base: BaseRecord, why_not: WhyNot) -> str | None:
        """`why_not`, but for what a conversion cures."""
        reason = why_not_servable(version, base)
        return reason or (None if self.converts(version) else why_not(version))

    def resolve(
        self,
        registry: Registry,
        base: BaseRecord,
        model: object,
        why_not: WhyNot,
        key: str | None = None,
    ) -> Version | None:
        """The version that answers `model`, None for the base; see `serve.models.resolve_model`.

        Raises RequestError (400, 404, 422), and NotMadeError where it has to be made first.
        """
        if isinstance(model, str) and is_expression(model):
            version = self._merged(registry, base, model, key)
        else:
            as_it_is = partial(self.why_not, base=base, why_not=why_not)
            found = resolve_model(registry, base, model, as_it_is, key)
            if found is None or not self.converts(found):
                return found
            version = self._converted(registry, base, found)
        if reason := why_not(version):
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
        return version

    async def completed(self, resolve: Callable[[], Awaitable[T]]) -> T:
        """What `resolve` returns, once the version that it lacks is made."""
        try:
            return await resolve()
        except NotMadeError as missing:
            await self._make(missing)
        try:
            return await resolve()
        except NotMadeError as missing:
            raise come_again(f"{missing.wanted.text} was let go at once") from None

    async def _make(self, missing: NotMadeError) -> None:
        used = list(self._used)[::-1]
        try:
            await self._builds.make(missing.wanted, missing.base_bytes, used)
        except RequestError as error:
            if not missing.reason:
                raise
            what = f"{missing.reason}; {error.message}"
            raise RequestError(error.status, what, error.param, error.headers) from error

    def _merged(self, registry: Registry, base: BaseRecord, model: str, key: str | None) -> Version:
        if not self._settings.merges:
            what = "this server makes no merges (adz serve --request-merges N)"
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, what)
        try:
            expression = _parse(model)
            versions = {
                term.reference: _operand(registry, base, term.reference, key)
                for term in expression.terms
            }
            wanted = wanted_merge(expression, versions, self._most_rank)
            version = find(registry, wanted)
            if version is None:
                _check_recipe(wanted)
                raise NotMadeError(wanted, "", 0)
        except AdzError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error
        self._used.pop(wanted.name, None)
        self._used[wanted.name] = None
        if len(self._used) > _NAMES_KEPT:
            del self._used[next(iter(self._used))]
        return version

    def _converted(self, registry: Registry, base: BaseRecord, source: Version) -> Version:
        wanted = wanted_conversion(source, self._most_rank)
        version = find(registry, wanted)
        if version is None:
            reason = self._only_converted(source) or ""
            raise NotMadeError(wanted, reason, base.parameters * _FLOAT_BYTES * _COPIES)
        return version


def tell_error(version: Version | None) -> None:
    """Put what was lost into the answer's headers, where a request made `version`."""
    if version is not None and is_derived(version):
        lost = version.manifest.metrics.get("relative_error") or 0.0
        current_request().headers[ERROR_HEADER] = f"{lost:.3g}"


def _operand(registry: Registry, base: BaseRecord, reference: str, key: str | None) -> Version:
    # What the engine cannot serve by itself may still be merged.
    any_method = partial(why_not_servable, base=base)
    version = resolve_model(registry, base, reference, any_method, key)
    if version is None:
        what = f"{reference} is the base, name adapters in an expression"
        raise RequestError(HTTPStatus.BAD_REQUEST, what)
    return version


def _check_recipe(wanted: Wanted) -> None:
    """Raise a usage error for what needs no adapter to be found wrong."""
    from adapterhub.config import validate
    from adapterhub.merge.plan import choose
    from adapterhub.merge.recipe import MergeRecipe

    choose(validate(MergeRecipe, wanted.recipe), wanted.recipe["rule"])
