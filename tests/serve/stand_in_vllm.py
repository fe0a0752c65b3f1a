"""The adapters of the vLLM plugin over an engine that stands in for vLLM's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from adapterhub.protocols import ServeSettings
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import Residency
from adapterhub_vllm.adapters import Adapters
from adapterhub_vllm.settings import ServerSettings

T = TypeVar("T")


class Engine:
    """Stands in for AsyncLLM: takes a while to load what it reads, and fails for the names that
    it is told."""

    def __init__(self) -> None:
        self.added: list[Any] = []
        self.removed: list[int] = []
        self.failing: set[str] = set()

    async def add_lora(self, request: Any) -> bool:
        self.added.append(request)
        files = {path.name for path in Path(request.lora_path).iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json"} <= files
        await asyncio.sleep(0.05)
        if request.lora_name in self.failing:
            raise RuntimeError("Call to add_lora method failed:\nValueError: no such module")
        return True

    async def remove_lora(self, number: int) -> bool:
        self.removed.append(number)
        return True


class Server:
    """The adapters over that engine, in an event loop."""

    def __init__(self, room: int = 8) -> None:
        self.engine = Engine()
        doors = door_settings(ServeSettings("tiny"), 4)
        self.adapters = Adapters(ServerSettings("tiny", 16, room, doors))
        self.adapters.start(cast("Any", self.engine), Residency())

    async def ask(self, model: object) -> Any:
        with self.adapters.request():
            return await self.adapters.request_for(model)

    async def refused(self, model: object) -> RequestError:
        with pytest.raises(RequestError) as raised:
            await self.ask(model)
        return raised.value

    @property
    def loaded(self) -> list[str]:
        return [entry.lora_name for entry in self.engine.added]


def run(work: Callable[[Server], Awaitable[T]], room: int = 8) -> T:
    async def main() -> T:
        server = Server(room)
        try:
            return await work(server)
        finally:
            assert server.adapters._sweeping
            server.adapters._sweeping.cancel()

    return asyncio.run(main())
