"""The doors: everything that stands between a socket and an engine, as pure ASGI middleware.

A request passes the keys, the list of routes, its key's rate, the bounds of its body, its key's
scope, the tokens, the adapter's rate and the queue, in this order; the first that refuses it
answers. A response goes through as it comes, and its place is free when it ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from adapterhub.serve.doors.admission import Admission, Place, too_many
from adapterhub.serve.doors.answers import Filtered, Masked, Send, no_model, refuse
from adapterhub.serve.doors.body import (
    Asked,
    BodyReader,
    ClientGoneError,
    Message,
    Receive,
    parse_body,
)
from adapterhub.serve.doors.drain import Drain
from adapterhub.serve.doors.keyring import Keyring
from adapterhub.serve.doors.keys import Key
from adapterhub.serve.doors.origin import refuse_other_sites
from adapterhub.serve.doors.rates import Rate
from adapterhub.serve.doors.routes import Kind, Route, find_route, is_listed, is_open
from adapterhub.serve.doors.settings import DoorSettings
from adapterhub.serve.doors.watch import Observed, Watch
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import Metrics, ServedRequest
from adapterhub.serve.pulse import Pulse
from adapterhub.serve.sticky import ASKING, sticky_key

Scope = MutableMapping[str, Any]
Headers = dict[bytes, bytes]
App = Callable[[Any, Any, Any], Awaitable[None]]

_WRITTEN_ANEW = (b"content-length", b"transfer-encoding", b"x-request-id")


class Doors:
    """Stands before `app`, on one event loop. pulse: of its engine, where that is watched."""

    def __init__(
        self,
        app: App,
        settings: DoorSettings,
        metrics: Metrics | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        limits = settings.limits
        if limits.at_once is None:
            raise ValueError("the engine did not say how much it answers at once")
        self._app = app
        self._pulse = pulse
        self._max_tokens = limits.max_tokens
        self._per_minute = limits.requests_per_minute
        self._guarded = settings.keys is not False
        self._keyring = Keyring(settings.digests, settings.keys)
        self._bodies = BodyReader(limits.body_bytes, limits.body_seconds)
        self._admission = Admission(limits.at_once, limits.adapter_at_once, limits.waiting)
        self._key_rate, self._adapter_rate = Rate(), Rate()
        self._drain = Drain(settings.drain_seconds)
        self._watch = Watch(metrics or Metrics(), settings)

    async def drain(self) -> None:
        """From now on take no request for a model; returns when those inside are answered."""
        await self._drain.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            # No engine's websocket is behind the doors.
            await send({"type": "websocket.close", "code": 1008})
        elif is_open(scope["method"], scope["path"]):
            await self._answer_open(scope, receive, send)
        elif self._is_preflight(scope):
            await self._app(scope, receive, send)
        else:
            try:
                await self._pass(scope, receive, send)
            except ClientGoneError:
                return

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        request = self._watch.begin(scope, headers.get(b"x-request-id"))
        send = Observed(send, request)
        body, place, inside, entered, refused = b"", None, False, False, None
        try:
            try:
                key, route = self._check(scope, headers, request)
                if route.kind is Kind.MODEL:
                    self._drain.enter()
                    inside = True
                body = await self._bodies.read(receive, headers.get(b"content-length"))
                content = body
                if route.kind is Kind.MODEL:
                    asked = parse_body(body)
                    self._watch.enter(request, asked)
                    entered = True
                    content = self._bound(asked, key, scope["path"], body)
                    request.token_limit = asked.token_limit
                    ASKING.set(sticky_key(asked.values, headers))
                    place = await self._place(asked, key, receive)
                    request.admitted = True
                    if not key.opens_everything:
                        send = Masked(send, asked.model, receive)
                elif route.kind is Kind.LIST and not key.opens_everything:
                    send = Filtered(send, key)
                elif scope["path"] == "/metrics":
                    await self._watch.metrics.refresh()
            except RequestError as error:
                refused = error
                await refuse(error, receive, send)
                return
            receive = _replay(content, receive, request)
            await self._app(_for_engine(scope, content, request), receive, send)
        except Exception:
            request.status, request.complete = HTTPStatus.INTERNAL_SERVER_ERROR, True
            raise
        finally:
            self._bodies.forget(body)
            if place is not None:
                self._admission.leave(place)
            if inside:
                self._drain.leave()
            self._watch.end(request, refused, entered=entered)

    async def _answer_open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`/health` is the engine's own, where its steps end; `/ready` is that of an engine which
        takes requests."""
        if self._pulse is not None and self._pulse.stalled:
            what = f"no step of the engine ended for {self._pulse.seconds:g} s"
            await refuse(RequestError(HTTPStatus.SERVICE_UNAVAILABLE, what, None), receive, send)
        elif scope["path"] != "/ready":
            await self._app(scope, receive, send)
        elif self._drain.refusal is not None:
            await refuse(self._drain.refusal, receive, send)
        else:
            await self._app({**scope, "path": "/health", "raw_path": b"/health"}, receive, send)

    def _check(self, scope: Scope, headers: Headers, request: ServedRequest) -> tuple[Key, Route]:
        """Who asks for what, before anything of the body is read."""
        key = self._keyring.find(_given_key(headers))
        request.key = key.name
        if self._guarded and not self._keyring.needed:
            refuse_other_sites(headers)
        route = find_route(scope["method"], scope["path"])
        if route.kind is Kind.SERVER and not key.opens_everything:
            what = f"{scope['path']} is for keys of every model, this one has a scope"
            raise RequestError(HTTPStatus.FORBIDDEN, what, None)
        seconds = self._key_rate.take(key.name, key.requests_per_minute)
        if seconds:
            what = f"this key has {key.requests_per_minute} requests a minute"
            raise too_many(what, seconds, "key_rate")
        return key, route

    def _bound(self, asked: Asked, key: Key, path: str, body: bytes) -> bytes:
        """The body for the engine, once scope, tokens and rate allow it."""
        if not key.opens_everything and not (asked.names and all(map(key.allows, asked.names))):
            raise no_model(asked.model)
        changed = self._max_tokens is not None and asked.bound_tokens(self._max_tokens, path)
        name, seconds = self._adapter_rate.take_all(asked.names, self._per_minute)
        if seconds:
            what = f"{name} answers {self._per_minute} requests a minute"
            raise too_many(what, seconds, "adapter_rate")
        # What was checked is what the engine reads, whatever it makes of a field that is there
        # twice.
        return json.dumps(asked.values).encode() if changed or not key.opens_everything else body

    async def _place(self, asked: Asked, key: Key, receive: Receive) -> Place:
        """A place in the engine, as soon as it is this request's turn."""
        place = self._admission.ask(asked.name, key.name, asked.sequences, key.concurrent)
        try:
            if not place.granted.done():
                await _granted_or_gone(place.granted, receive)
        except BaseException:
            self._admission.leave(place)
            raise
        return place

    def _is_preflight(self, scope: Scope) -> bool:
        """A browser's question before a request with a key; browsers send none with it."""
        return (
            scope["method"] == "OPTIONS"
            and self._keyring.needed
            and is_listed(scope["path"])
            and b"access-control-request-method" in dict(scope["headers"])
        )


def _given_key(headers: Headers) -> bytes | None:
    """From `Authorization: Bearer KEY`, or `x-api-key`, which Anthropic's clients send."""
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key if scheme.lower() == b"bearer" else headers.get(b"x-api-key")


async def _granted_or_gone(granted: asyncio.Future[None], receive: Receive) -> None:
    """Wait for the turn; raises ClientGoneError when the client went away before."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({granted, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
    if not granted.done():
        raise ClientGoneError


def _replay(body: bytes, receive: Receive, request: ServedRequest) -> Receive:
    """A `receive` that begins with the body that was read already, and notes when the client
    goes away before the end of its answer."""
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            message = await receive()
            request.gone = request.gone or not request.complete
            return message
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _for_engine(scope: Scope, body: bytes, request: ServedRequest) -> Scope:
    """The scope with the length of a body that may have been written anew, in one piece, and with
    the id under which the doors know the request."""
    kept = [pair for pair in scope["headers"] if pair[0] not in _WRITTEN_ANEW]
    length = (b"content-length", str(len(body)).encode())
    return {**scope, "headers": [*kept, length, (b"x-request-id", request.id.encode())]}
