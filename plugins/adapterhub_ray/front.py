"""What Ray's HTTP proxy calls: reads which adapter is meant, and passes the request on."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapterhub.errors import AdzError
from adapterhub.plugins import open_registry
from adapterhub_ray.replica import passed


class Front:
    """Stateless; `replicas` is Ray's handle of them. body_bytes: of the largest request."""

    def __init__(self, replicas: Any, body_bytes: int) -> None:
        self._replicas = replicas.options(stream=True)
        self._body_bytes = body_bytes
        self._registry: Any = None

    async def __call__(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._body_bytes:
                text = f"a request has at most {self._body_bytes} bytes"
                return JSONResponse(
                    {"error": {"message": text, "type": "BadRequestError"}},
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                )
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        digest = await asyncio.to_thread(self._digest, body)
        handle = self._replicas.options(multiplexed_model_id=digest)
        headers = passed(request.headers.raw)
        answer = aiter(handle.answer.remote(request.method, path, headers, body))
        status, given = await anext(answer)
        response = StreamingResponse(answer, status)
        response.raw_headers = given
        return response

    def _digest(self, body: bytes) -> str:
        """Of the version that a body's `model` means now; empty for the base, and for what the
        replica will refuse."""
        try:
            model = json.loads(body)["model"]
            if self._registry is None:
                self._registry = open_registry()
            return str(self._registry.resolve(model).digest)
        except (AdzError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return ""
