"""One replica: a whole `adz serve` on loopback, and the actor that asks it.

The server is the same as everywhere, with its doors and its registry, whatever the engine. Its
answers go through as they come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from ray import serve

from adapterhub.errors import AdzError
from adapterhub.serve.background import serving

Headers = list[tuple[bytes, bytes]]

REPLICA = b"x-adapterhub-replica"
"""Says in an answer which replica gave it."""

# Of one connection only, or written anew.
_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"host", b"content-length"})


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """arguments: of `adz serve`, the base first. api_key: what opens the server, None where it
    asks for none. models: adapters that a replica keeps."""

    arguments: tuple[str, ...]
    home: Path
    api_key: str | None
    models: int
    start_seconds: float = 900.0


class Replica:
    """Lives as long as its server."""

    def __init__(self, settings: ReplicaSettings) -> None:
        self._stack = ExitStack()
        try:
            url = self._stack.enter_context(
                serving(
                    settings.arguments,
                    home=settings.home,
                    api_key=settings.api_key,
                    start_seconds=settings.start_seconds,
                )
            )
        except AdzError as error:
            # Ray carries what any Python can read.
            raise RuntimeError(str(error)) from None
        self._client = httpx2.AsyncClient(
            base_url=url.removesuffix("/v1"), timeout=None, trust_env=False
        )

        async def hold(model: str) -> str:
            return model

        # Says what this replica holds to a router that is new and remembers nothing.
        self._hold = serve.multiplexed(hold, max_num_models_per_replica=settings.models)

    async def answer(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> AsyncIterator[Any]:
        """Status and headers as the first item, then the body as it comes."""
        model = serve.get_multiplexed_model_id()
        if model:
            await self._hold(model)
        request = self._client.build_request(method, path, headers=headers, content=body)
        response = await self._client.send(request, stream=True)
        try:
            who = serve.get_replica_context().replica_id.unique_id
            yield response.status_code, [*passed(response.headers.raw), (REPLICA, who.encode())]
            async for chunk in response.aiter_raw():
                yield chunk
        finally:
            await response.aclose()

    def check_health(self) -> None:
        """Raise where the server is gone: Ray then starts another replica."""
        with httpx2.Client(base_url=self._client.base_url, trust_env=False) as client:
            client.get("/health", timeout=20).raise_for_status()

    def __del__(self) -> None:
        stack = getattr(self, "_stack", None)
        if stack is not None:
            stack.close()


def passed(headers: Any) -> Headers:
    """The headers that go on."""
    return [(name.lower(), value) for name, value in headers if name.lower() not in _HOP]
