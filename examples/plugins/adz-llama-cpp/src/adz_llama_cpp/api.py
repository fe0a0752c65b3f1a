"""The routes of the OpenAI API."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse

from adapterhub import AdzError
from adapterhub.generate import Continuation
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import current_request, exposition
from adz_llama_cpp.requests import ChatRequest, CompletionRequest, GenerationRequest
from adz_llama_cpp.runner import Job
from adz_llama_cpp.service import Service

# OpenAI's own default for completions; a chat may use the whole context.
_COMPLETION_TOKENS = 16
_POLL_SECONDS = 0.5


def create_app(service: Service) -> FastAPI:
    """The application; `serve_app` puts the doors before it."""
    app = FastAPI(openapi_url=None)
    _answer_errors(app, service)

    @app.get("/health")
    async def health() -> Response:
        alive = service.runner.is_alive()
        return Response(status_code=HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(service.metrics), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        served = await asyncio.to_thread(service.models)
        cards = [
            {
                "id": model.id,
                "object": "model",
                "created": 0,
                "owned_by": "adapterhub",
                "root": service.name(model.version),
                "parent": service.base.name if model.version else None,
                "max_model_len": service.context,
            }
            for model in served
        ]
        return {"object": "list", "data": cards}

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        version = await service.resolve(body.model)
        await asyncio.to_thread(service.apply_preset, body, version)
        body.max_tokens = body.max_tokens or _COMPLETION_TOKENS
        service.warn_of_format(version, "plain")
        tokens = service.tokens_of_text(body.prompt)
        job = await asyncio.to_thread(service.job, version, tokens, body)
        return await _respond(service, request, body, Reply("text", job))

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        version = await service.resolve(body.model)
        preset = await asyncio.to_thread(service.apply_preset, body, version)
        service.warn_of_format(version, "chat")
        turns = [message.turn() for message in body.messages]
        tokens = service.tokens_of_chat(turns, preset.chat_template)
        job = await asyncio.to_thread(service.job, version, tokens, body)
        return await _respond(service, request, body, Reply("chat", job))

    return app


@dataclass(frozen=True, slots=True)
class Reply:
    """One response in the shapes of the API; its model is what answers, immutably."""

    kind: Literal["chat", "text"]
    job: Job
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def whole(self, answer: Continuation) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        said = {"role": "assistant", "content": answer.text}
        content = {"message": said} if self.kind == "chat" else {"text": answer.text}
        kind = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._body(kind, content, answer.finish), "usage": self.usage(answer)}

    def piece(self, text: str, finish: str | None = None, *, first: bool = False) -> dict[str, Any]:
        """One event of a stream; the first of a chat says who speaks."""
        if self.kind == "text":
            return self._body("text_completion", {"text": text}, finish)
        delta = {"role": "assistant"} if first else {}
        delta |= {"content": text} if text or first else {}
        return self._body("chat.completion.chunk", {"delta": delta}, finish)

    def usage(self, answer: Continuation) -> dict[str, int]:
        """How many tokens were read and written."""
        read, written = len(self.job.tokens), len(answer.tokens)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }

    def _body(self, kind: str, content: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        return {
            "id": f"{'chatcmpl' if self.kind == 'chat' else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.job.name,
            "choices": [choice],
        }


async def _respond(
    service: Service, request: Request, body: GenerationRequest, reply: Reply
) -> Response:
    job, seen = reply.job, current_request()
    seen.prompt_tokens = len(job.tokens)
    pieces = _pieces(service, job)
    if body.stream:
        events = _events(service, pieces, reply, body.counted)
        return StreamingResponse(events, media_type="text/event-stream")
    reading = asyncio.create_task(_read(pieces))
    try:
        while not (await asyncio.wait([reading], timeout=_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise RequestError(HTTPStatus.BAD_REQUEST, "the client went away", None)
        answer = job.done.result()
    finally:
        job.abandon()
    seen.generated_tokens = len(answer.tokens)
    return JSONResponse(reply.whole(answer))


async def _read(pieces: AsyncIterator[str]) -> None:
    async for _ in pieces:
        pass


async def _pieces(service: Service, job: Job) -> AsyncIterator[str]:
    """The answer's text as it comes."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | None]()
    seen = current_request()

    def put(text: str | None) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, text)

    def tell(text: str) -> None:
        seen.note_first_token()
        put(text)

    job.on_text = tell
    job.done.add_done_callback(lambda _: put(None))
    service.runner.submit(job)
    while (text := await queue.get()) is not None:
        yield text


async def _events(
    service: Service, pieces: AsyncIterator[str], reply: Reply, counted: bool
) -> AsyncIterator[str]:
    job, seen = reply.job, current_request()
    try:
        yield _event(reply.piece("", first=True))
        async for text in pieces:
            yield _event(reply.piece(text))
        answer = job.done.result()
        seen.generated_tokens = len(answer.tokens)
        yield _event(reply.piece("", answer.finish))
        if counted:
            yield _event({**reply.piece(""), "choices": [], "usage": reply.usage(answer)})
        yield "data: [DONE]\n\n"
    # The status line is gone already, so an error is an event too.
    except Exception as error:
        seen.broken = True
        yield _event(service.refusal(error).body())
    finally:
        job.abandon()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _answer_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _error(service.refusal(error))

    for kind in (RequestError, AdzError):
        app.add_exception_handler(kind, failed)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str)) or None
        message = f"{place}: {first['msg']}" if place else first["msg"]
        return _error(RequestError(HTTPStatus.BAD_REQUEST, message, place))


def _error(error: RequestError) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)
