"""Follows each request through the doors into the metrics and the log of requests."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from adapterhub.serve.doors.answers import Send
from adapterhub.serve.doors.body import Asked, Message
from adapterhub.serve.doors.settings import DoorSettings
from adapterhub.serve.errors import RequestError, refusal_reason
from adapterhub.serve.metrics.log import RequestLog
from adapterhub.serve.metrics.metrics import Metrics
from adapterhub.serve.metrics.request import CLIENT_GONE, ServedRequest, request_id, set_current

_LONGEST_REFERENCE = 256


class Watch:
    """Used from one event loop."""

    def __init__(self, metrics: Metrics, settings: DoorSettings) -> None:
        self.metrics = metrics
        path = Path(settings.requests_log) if settings.requests_log else None
        self._log = RequestLog(path, settings.log_format)

    def begin(self, scope: MutableMapping[str, Any], given_id: bytes | None) -> ServedRequest:
        """A request came in; whoever calls this calls `end`."""
        return ServedRequest(path=scope["path"], id=request_id(given_id))

    def enter(self, request: ServedRequest, asked: Asked) -> None:
        """It asks for a model."""
        model = asked.values.get("model")
        if isinstance(model, str) and len(model) <= _LONGEST_REFERENCE:
            request.reference = model
        set_current(request)
        self.metrics.begin(request)

    def end(self, request: ServedRequest, error: RequestError | None, *, entered: bool) -> None:
        """Nothing more happens to it; `error`: why the doors refused it."""
        seconds = time.monotonic() - request.begun
        if request.gone or not request.complete:
            request.status = CLIENT_GONE
        elif request.broken and request.status < HTTPStatus.BAD_REQUEST:
            request.status = HTTPStatus.INTERNAL_SERVER_ERROR
        reason = error.reason if error else ""
        if not error and HTTPStatus.BAD_REQUEST <= request.status != CLIENT_GONE:
            reason = refusal_reason(request.status)
        if reason:
            self.metrics.refused(reason)
        if entered:
            self.metrics.end(request, seconds)
        if entered or reason:
            self._log.write(request, seconds, reason)


class Observed:
    """A `send` that notes how the answer goes, and says in it which request it answers and what
    the engine has to tell."""

    def __init__(self, send: Send, request: ServedRequest) -> None:
        self._send = send
        self._request = request

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._request.status = message["status"]
            told = dict(self._request.headers) | {"x-request-id": self._request.id}
            ours = {name.encode(): value.encode() for name, value in told.items()}
            kept = [pair for pair in message.get("headers", ()) if pair[0] not in ours]
            message = {**message, "headers": [*kept, *ours.items()]}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._request.complete = True
