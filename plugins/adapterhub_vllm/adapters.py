"""From a request's `model` to the adapter that vLLM loads, at each request anew.

A version is loaded under an id of its own and from a path named by its digest, and checked
before. An alias that moves therefore only changes which version the next request gets.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from adapterhub.convert.source import may_convert
from adapterhub.derived.served import Derived, tell_error
from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.plugins import open_registry
from adapterhub.serve.errors import RequestError
from adapterhub.serve.hold import Hold
from adapterhub.serve.metrics import Residency, ServedRequest, current_request
from adapterhub.serve.models import ModelList, ServedModel
from adapterhub.serve.preset import Presets
from adapterhub.serve.removed import SWEEP_SECONDS, removed_digests
from adapterhub.serve.sticky import ASKING
from adapterhub.serve.unknown import UnknownNames
from adapterhub_vllm.copies import Copies
from adapterhub_vllm.limits import why_not_as_it_is, why_not_files, why_not_method, why_not_vllm
from adapterhub_vllm.residents import Residents
from adapterhub_vllm.soft_prompts import check_engine, read_soft_prompt

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient
    from vllm.lora.request import LoRARequest

    from adapterhub_vllm.residents import Entry
    from adapterhub_vllm.settings import ServerSettings

# How long a version that could not be loaded is refused without another try.
_RETRY_SECONDS = 30.0
_FAILURES_KEPT = 1024
# vLLM's own settings make it readable in its log.
_LOG = logging.getLogger("vllm.adapterhub")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failure:
    status: HTTPStatus
    message: str
    until: float


class _OnlyAsLoraError(Exception):
    """The files hold what vLLM does not serve, and what a conversion may cure."""


class Adapters:
    """The versions that this server answers with. Used from one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapterhub-registry")
        # Apart from it, so that no request waits for the files of another one's adapter.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="adapterhub-loading")
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._unknown = UnknownNames()
        self._registry: Any = None
        self._hold = Hold("vllm")
        self._listed = ModelList()
        self._presets = Presets()
        self._copies = Copies()
        self._residents: Residents | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._derived = Derived(settings.derivations, settings.max_rank, self._only_converted)
        # By digest, where the files say what the manifest does not.
        self._only_as_lora: dict[str, str | None] = {}

    def start(self, engine: EngineClient, residency: Residency) -> None:
        """Answer with this engine, from now on, in the running event loop."""
        self._residents = Residents(engine, self._settings.room, self._load, residency)
        self._sweeping = asyncio.ensure_future(self._sweep())

    @property
    def residents(self) -> Residents:
        """What is in the engine's memory."""
        if self._residents is None:
            raise RuntimeError("the server has not started yet")
        return self._residents

    def request(self) -> AbstractContextManager[None]:
        """The length of one request, for which the adapters that it takes stay loaded."""
        return self.residents.request()

    async def request_for(self, model: object) -> Entry | None:
        """What vLLM needs to answer `model`, None for the base. Raises RequestError."""
        version = await self._version_for(model)
        tell_error(version)
        if version is None:
            return None
        failure = self._failures.get(version.digest)
        if failure is not None and time.monotonic() < failure.until:
            raise RequestError(failure.status, failure.message)
        try:
            return await self.residents.take(version)
        except _OnlyAsLoraError:
            return await self.request_for(model)

    async def _version_for(self, model: object) -> Version | None:
        return cast(
            "Version | None",
            await self._derived.completed(
                lambda: self._in_thread(self._resolve, model, ASKING.get(), current_request())
            ),
        )

    def loaded(self, name: str) -> Entry | None:
        """The entry whose `lora_name` is `name`, if it is loaded."""
        return self.residents.find(name)

    def held(self, entry: Entry, answers: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The engine's answers, with the entry loaded until they end."""
        return self.residents.hold(entry.lora_int_id, answers)

    async def models(self) -> list[ServedModel]:
        """The references that would be answered now."""

        def read() -> list[ServedModel]:
            registry = self._open()
            base = registry.base(self._settings.base)
            rank = self._settings.max_rank
            why_not = partial(why_not_vllm, base=base, max_rank=rank)
            as_served = partial(self._derived.why_not, base=base, why_not=why_not)
            return self._listed.read(registry, base, as_served, self._derived.converts)

        return cast("list[ServedModel]", await self._in_thread(read))

    async def _load(self, engine: EngineClient, version: Version, number: int, name: str) -> Entry:
        from vllm.lora.request import LoRARequest

        loop = asyncio.get_running_loop()
        try:
            directory = await loop.run_in_executor(self._loading, self._private_copy, version)
            try:
                prompt = read_soft_prompt(directory, number, name)
                if prompt is not None:
                    check_engine(engine, version)
                    return prompt
                request = LoRARequest(name, number, str(directory))
                await _add(engine, request, version)
            finally:
                # vLLM never reads it again, and nobody else can change what it may have mapped.
                await loop.run_in_executor(self._loading, shutil.rmtree, directory)
        except RequestError as error:
            self._remember_failure(version, error)
            raise
        return request

    def _remember_failure(self, version: Version, error: RequestError) -> None:
        self._failures[version.digest] = _Failure(
            error.status, error.message, time.monotonic() + _RETRY_SECONDS
        )
        self._failures.move_to_end(version.digest)
        while len(self._failures) > _FAILURES_KEPT:
            self._failures.popitem(last=False)

    def _resolve(self, model: object, key: str | None, request: ServedRequest) -> Version | None:
        registry = self._open()
        base = registry.base(self._settings.base)
        rank = self._settings.max_rank
        why_not = partial(why_not_vllm, base=base, max_rank=rank)
        with self._unknown.remembered(registry, model):
            version = self._derived.resolve(registry, base, model, why_not, key)
        if version is not None:
            self._hold.add(registry, version)
            request.preset = self._presets.of(registry, version)
        return version

    def _private_copy(self, version: Version) -> Path:
        """The verified files in a directory that is named by the digest, and that nobody else
        knows."""
        try:
            registry = self._open()
            registry.admit(version, registry.base(self._settings.base))
            with self._copies.new(registry, version) as directory:
                self._only_as_lora[version.digest] = why_not_as_it_is(version, directory)
                if self._derived.converts(version):
                    raise _OnlyAsLoraError
                reason = why_not_files(version, directory, self._settings.max_rank)
                if reason:
                    raise AdzError(reason)
        except AdzError as error:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except (OSError, ValueError, KeyError) as error:
            reason = f"{version.reference} cannot be read: {error}"
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, reason) from error
        return directory

    async def _sweep(self) -> None:
        """Let go of what was removed from the registry."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            held = [(version.name, version.digest) for version in self.residents.versions()]
            try:
                gone = await self._in_thread(self._removed, held)
            # Whatever it is, the next look may be better than none for ever.
            except Exception:
                _LOG.exception("looking for removed versions failed")
                continue
            for digest in gone:
                self.residents.retire(digest)

    def _removed(self, held: list[tuple[str, str]]) -> list[str]:
        gone = removed_digests(self._open(), held)
        self._hold.drop(gone)
        return gone

    def _only_converted(self, version: Version) -> str | None:
        if not may_convert(version):
            return None
        return why_not_method(version) or self._only_as_lora.get(version.digest)

    def _open(self) -> Any:
        """The registry, first asked for in the registry's thread."""
        if self._registry is None:
            self._registry = open_registry()
        return self._registry

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


async def _add(engine: EngineClient, request: LoRARequest, version: Version) -> None:
    """Load into the engine now: a failure there belongs to this request, while a failure in
    the middle of a step would end the engine."""
    try:
        await engine.add_lora(request)
    except Exception as error:
        # vLLM may have taken it in before it failed, and would count it.
        with suppress(Exception):
            await engine.remove_lora(request.lora_int_id)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"vLLM cannot load {version.reference}: {lines[-1]}"
        ) from error
