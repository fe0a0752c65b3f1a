"""An app behind the doors, on a real socket of uvicorn."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from adapterhub.protocols import Limits
from adapterhub.serve.doors.connection import PatientConnection
from adapterhub.serve.doors.middleware import Doors
from adapterhub.serve.doors.settings import DoorSettings
from adapterhub.serve.metrics import current_request
from adapterhub.serve.pulse import Pulse


@dataclass
class Stub:
    """An engine that answers with what it got. A body's `hold` waits for `release`, `stream`
    counts to that number in events, one for each `step`, and `large` answers that many bytes."""

    began: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    cards: tuple[str, ...] = ("tiny", "sql", "sql@1", "team/a", "team/a@prod")
    status: int = 200
    loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        self.loop = asyncio.get_running_loop()
        if scope["path"] == "/v1/models":
            data = {"object": "list", "data": [{"id": card, "root": card} for card in self.cards]}
            return await self._json(send, data)
        if scope["path"] == "/health":
            return await self._json(send, {})
        asked = json.loads(body) if body else {}
        self.seen.append({"path": scope["path"], "headers": scope["headers"], "body": asked})
        model = str(asked.get("model"))
        self.began.append(model)
        try:
            await self._answer(asked, receive, send)
        finally:
            self.ended.append(model)

    async def _answer(self, asked: dict[str, Any], receive: Any, send: Any) -> None:
        if asked.get("hold"):
            gone = asyncio.ensure_future(receive())
            while not self.release.is_set() and not gone.done():
                await asyncio.sleep(0.005)
            gone.cancel()
        if asked.get("stream"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            gone = asyncio.ensure_future(receive())
            for number in range(asked["stream"]):
                if gone.done():
                    return
                text = f"data: {number}\n\n".encode()
                await send({"type": "http.response.body", "body": text, "more_body": True})
                await asyncio.sleep(asked.get("step", 0))
            gone.cancel()
            # As an engine's plugin notes it: the status line is gone already.
            current_request().broken = bool(asked.get("breaks"))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await self._json(send, {**asked, "pad": "x" * asked.get("large", 0)})

    async def _json(self, send: Any, value: Any) -> None:
        body = json.dumps(value).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@dataclass
class Site:
    """The stub behind doors, listening."""

    stub: Stub
    doors: Doors
    port: int
    client: httpx2.Client
    loop: asyncio.AbstractEventLoop

    def ask(self, model: Any = "sql", key: str | None = None, **body: Any) -> httpx2.Response:
        """One completion."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.client.post("/v1/completions", json={"model": model, **body}, headers=headers)

    def get(self, path: str, key: str | None = None, **headers: str) -> httpx2.Response:
        """One GET."""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return self.client.get(path, headers=headers)


Serve = Callable[..., Site]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(60) as threads:
        yield threads


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Starts doors with these limits; `keys` and `digests` are those of `DoorSettings`."""
    running = []

    def start(
        *,
        keys: bool | None = None,
        digests: tuple[str, ...] = (),
        requests_log: str | None = None,
        pulse: Pulse | None = None,
        **limits: Any,
    ) -> Site:
        stub = Stub()
        given = Limits(**{"at_once": 4, **limits})
        settings = DoorSettings(digests, keys, given, requests_log=requests_log, log_format="json")
        doors = Doors(stub, settings, pulse=pulse)
        config = uvicorn.Config(
            doors, port=0, log_level="warning", lifespan="off", http=PatientConnection
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)
        running.append((server, thread, client, stub))
        client.get("/health")
        assert stub.loop is not None
        return Site(stub, doors, port, client, stub.loop)

    yield start
    for server, thread, client, stub in running:
        stub.release.set()
        client.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
