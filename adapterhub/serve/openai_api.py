"""What the OpenAI API is in every engine in Python: shapes of answers, events and errors.

An engine makes its routes and says what it can be asked for. The doors before it are
`adapterhub.serve.app`'s.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.protocols import Progress
from adapterhub.serve.errors import RequestError
from adapterhub.serve.models import ServedModel

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

T = TypeVar("T")

COMPLETION_TOKENS = 16
"""OpenAI's own default for completions; a chat may use the whole context."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Envelope:
    """One response: its id, and the model that answers, as the immutable reference."""

    kind: Literal["chat", "text"]
    model: str
    created: int = field(default_factory=lambda: int(time.time()), kw_only=True)
    id: str = field(default_factory=lambda: uuid.uuid4().hex, kw_only=True)

    def body(
        self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, int]
    ) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        head = self._head("chat.completion" if self.kind == "chat" else "text_completion")
        return {**head, "choices": list(choices), "usage": dict(usage)}

    def piece(
        self,
        index: int,
        content: Mapping[str, Any],
        finish: str | None = None,
        logprobs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One event of a stream. `content`: the choice's `text`, or its `delta`."""
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        return {**self._stream_head(), "choices": [choice]}

    def last(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """The event that counts a stream's tokens."""
        return {**self._stream_head(), "choices": [], "usage": dict(usage)}

    def _stream_head(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk" if self.kind == "chat" else "text_completion")

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """How many tokens were read and written."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event_text(value: Mapping[str, Any]) -> str:
    """A server-sent event; a stream ends with `data: [DONE]`."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def model_list(served: Sequence[ServedModel], base: str, context: int) -> dict[str, Any]:
    """`/v1/models`. context: tokens that prompt and answer may have together."""
    cards = [
        {
            "id": model.id,
            "object": "model",
            "created": 0,
            "owned_by": "adapterhub",
            "root": model.version.reference if model.version else base,
            "parent": base if model.version else None,
            "max_model_len": context,
            "digest": model.version.digest if model.version else None,
            "converted": model.converted,
        }
        for model in served
    ]
    return {"object": "list", "data": cards}


def room(tokens: Sequence[int], asked: int | None, context: int, param: str) -> int:
    """How many tokens the answer may have: `asked`, or all that fit. RequestError when that many
    do not fit, or the prompt is empty. param: the request's field that holds the prompt."""
    left = context - len(tokens)
    if not tokens:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the prompt is empty", param)
    if left < (asked or 1):
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            f"the prompt has {len(tokens)} tokens and the answer {asked or 'at least 1'}, "
            f"the context is {context}",
            param,
        )
    return asked or left


async def unless_gone(request: Request, answer: asyncio.Future[T]) -> T:
    """The result of `answer`. RequestError where the client went away before it was there, and
    then it is cancelled."""
    try:
        while not (await asyncio.wait([answer], timeout=_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise RequestError(HTTPStatus.BAD_REQUEST, "the client went away", None)
        return await answer
    finally:
        answer.cancel()


def refusal(error: Exception, progress: Progress) -> RequestError:
    """What a client is told when its request failed inside; the rest is for the server's log,
    since it may name files."""
    if isinstance(error, RequestError):
        return error
    progress.warn(f"{type(error).__name__}: {error}")
    damaged = isinstance(error, AdzError) and error.exit_code == EXIT_VERIFICATION
    status = HTTPStatus.UNPROCESSABLE_ENTITY if damaged else HTTPStatus.INTERNAL_SERVER_ERROR
    what = "this version is damaged" if damaged else "the request failed"
    return RequestError(status, f"{what}, the server's log says how", None)


def answer_errors(app: FastAPI, told: Callable[[Exception], RequestError]) -> None:
    """Answer whatever a route raises in the shape of the API. told: what a client is told of it,
    such as `refusal`."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def answer(error: RequestError) -> Response:
        return JSONResponse(error.body(), status_code=error.status, headers=dict(error.headers))

    async def failed(request: Request, error: Exception) -> Response:
        return answer(told(error))

    async def malformed(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str)) or None
        message = f"{place}: {first['msg']}" if place else first["msg"]
        return answer(RequestError(HTTPStatus.BAD_REQUEST, message, place))

    async def no_route(request: Request, error: Any) -> Response:
        reason = f"{error.detail}: {request.method} {request.url.path}"
        return answer(RequestError(HTTPStatus(error.status_code), reason, None))

    for kind in (Exception, RequestError, AdzError):
        app.add_exception_handler(kind, failed)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, no_route)
