"""What goes back to a client from the doors: refusals, and answers without what a key may not
see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

from adapterhub.serve.doors.body import Message, Receive
from adapterhub.serve.doors.keys import Key
from adapterhub.serve.errors import RequestError

Send = Callable[[Message], Awaitable[None]]

# How long a refused client may go on sending before it is cut off; one that reads its answer
# only after it sent everything would not see it otherwise.
_LINGER_SECONDS = 5.0


async def refuse(error: RequestError, receive: Receive, send: Send) -> None:
    """Answer with the error, in the shape of the OpenAI API."""
    content = json.dumps(error.body()).encode()
    extra = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await _start(send, error.status, content, extra)
    closing = error.headers.get("connection") == "close"
    await send({"type": "http.response.body", "body": content, "more_body": closing})
    if closing:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def no_model(model: str) -> RequestError:
    """What a scoped key is told of every name that it may not use, be it there or not."""
    what = f"the model {model} does not exist, or this key may not use it"
    return RequestError(HTTPStatus.NOT_FOUND, what)


class Masked:
    """A `send` that replaces an engine's 404: it would name the nearest names, of which a
    scoped key must not hear."""

    def __init__(self, send: Send, model: str, receive: Receive) -> None:
        self._send = send
        self._receive = receive
        self._model = model
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == HTTPStatus.NOT_FOUND:
            self._replaced = True
            await refuse(no_model(self._model), self._receive, self._send)
        elif not self._replaced:
            await self._send(message)


class Filtered:
    """A `send` for `/v1/models` that leaves out what the key may not use."""

    def __init__(self, send: Send, key: Key) -> None:
        self._send = send
        self._key = key
        self._first: Message = {}
        self._chunks: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._first = message
            return
        self._chunks.append(message.get("body", b""))
        if message.get("more_body"):
            return
        content = b"".join(self._chunks)
        status = self._first["status"]
        if status == HTTPStatus.OK and content:
            listed = json.loads(content)
            listed["data"] = [card for card in listed["data"] if self._allows(card["id"])]
            content = json.dumps(listed, ensure_ascii=False).encode()
        await _start(self._send, status, content, [])
        await self._send({"type": "http.response.body", "body": content, "more_body": False})

    def _allows(self, reference: str) -> bool:
        return self._key.allows(reference.partition("@")[0])


async def _start(send: Send, status: int, content: bytes, extra: list[tuple[bytes, bytes]]) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
