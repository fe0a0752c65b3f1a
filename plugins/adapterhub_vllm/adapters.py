"""From a request's `model` to the adapter that vLLM loads, at each request anew.

A version is loaded once, under an id of its own and from a directory named by its digest, and
checked before its first request. An alias that moves therefore only changes which of these
entries the next request gets.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.plugins import open_registry
from adapterhub.serve.errors import RequestError
from adapterhub.serve.hold import Hold
from adapterhub.serve.metrics import ServedRequest, current_request
from adapterhub.serve.models import ModelList, ServedModel, resolve_model
from adapterhub.serve.preset import Presets
from adapterhub.serve.sticky import ASKING
from adapterhub_vllm.limits import why_not_files, why_not_vllm

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient
    from vllm.lora.request import LoRARequest

    from adapterhub_vllm.settings import ServerSettings

# vLLM warms up with adapters numbered from 1.
_FIRST_ID = 1 << 16
# How long a version that could not be loaded is refused without another try.
_RETRY_SECONDS = 30.0
_FAILURES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class _Failure:
    status: HTTPStatus
    message: str
    until: float


class Adapters:
    """The versions that this server answers with. Used from one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        # One thread: the registry is opened in it and never leaves it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapterhub-registry")
        self._ids = count(_FIRST_ID)
        # By digest, one entry for every version that was ever asked for: the registry bounds it.
        # An entry never changes, since requests in flight hold its name and id.
        self._loaded: dict[str, LoRARequest] = {}
        self._by_name: dict[str, LoRARequest] = {}
        self._loading: dict[str, asyncio.Task[LoRARequest]] = {}
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._registry: Any = None
        self._hold = Hold("vllm")
        self._listed = ModelList()
        self._presets = Presets()

    async def request_for(self, model: object, engine: EngineClient | None) -> LoRARequest | None:
        """What vLLM needs to answer `model`, None for the base. Raises RequestError.

        engine: where a version is loaded before its first request; None where nothing is
        generated.
        """
        version, ready = await self._in_thread(
            self._resolve, model, ASKING.get(), current_request()
        )
        if version is None or ready is not None:
            return cast("LoRARequest | None", ready)
        failure = self._failures.get(version.digest)
        if failure is not None and time.monotonic() < failure.until:
            raise RequestError(failure.status, failure.message)
        task = self._loading.get(version.digest)
        if task is None:
            task = asyncio.create_task(self._load(version, engine))
            self._loading[version.digest] = task
            task.add_done_callback(lambda _: self._loading.pop(version.digest, None))
        # A client that goes away must not cancel the load that others wait for.
        return await asyncio.shield(task)

    def loaded(self, name: str) -> LoRARequest | None:
        """The entry whose `lora_name` is `name`, if it is loaded."""
        return self._by_name.get(name)

    async def models(self) -> list[ServedModel]:
        """The references that would be answered now."""

        def read() -> list[ServedModel]:
            registry = self._open()
            base = registry.base(self._settings.base)
            rank = self._settings.max_rank
            return self._listed.read(registry, base, lambda v: why_not_vllm(v, base, rank))

        return cast("list[ServedModel]", await self._in_thread(read))

    async def _load(self, version: Version, engine: EngineClient | None) -> LoRARequest:
        try:
            directory = await self._in_thread(self._checked_directory, version)
            request = self._loaded.get(version.digest) or self._entry(version, directory)
            if engine is not None:
                await _add(engine, request, version)
        except RequestError as error:
            self._remember_failure(version, error)
            raise
        self._loaded[version.digest] = request
        self._by_name[request.lora_name] = request
        return request

    def _entry(self, version: Version, directory: Path) -> LoRARequest:
        from vllm.lora.request import LoRARequest

        # vLLM tells the adapters of a batch apart by name, so no two digests may share one.
        taken = version.reference in self._by_name
        name = f"{version.name}@{version.digest}" if taken else version.reference
        return LoRARequest(lora_name=name, lora_int_id=next(self._ids), lora_path=str(directory))

    def _remember_failure(self, version: Version, error: RequestError) -> None:
        self._failures[version.digest] = _Failure(
            error.status, error.message, time.monotonic() + _RETRY_SECONDS
        )
        self._failures.move_to_end(version.digest)
        while len(self._failures) > _FAILURES_KEPT:
            self._failures.popitem(last=False)

    def _resolve(
        self, model: object, key: str | None, request: ServedRequest
    ) -> tuple[Version | None, LoRARequest | None]:
        """The version, and its entry where it is loaded and its files are still there: vLLM
        reads them again when it had to let go of it."""
        registry = self._open()
        base = registry.base(self._settings.base)
        rank = self._settings.max_rank
        version = resolve_model(registry, base, model, lambda v: why_not_vllm(v, base, rank), key)
        if version is not None:
            self._hold.add(registry, version)
            request.preset = self._presets.of(registry, version)
        entry = self._loaded.get(version.digest) if version else None
        there = entry is not None and Path(entry.lora_path, "adapter_model.safetensors").is_file()
        return version, entry if there else None

    def _checked_directory(self, version: Version) -> Path:
        try:
            registry = self._open()
            registry.admit(version, registry.base(self._settings.base))
            directory: Path = registry.path(version)
            reason = why_not_files(version, directory, self._settings.max_rank)
        except (AdzError, OSError, ValueError, KeyError) as error:
            reason = f"{version.reference} cannot be read: {error}"
        if reason:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
        return directory

    def _open(self) -> Any:
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
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"vLLM cannot load {version.reference}: {lines[-1]}"
        ) from error
