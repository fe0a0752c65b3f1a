"""The routes of the OpenAI API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from adapterhub.generate import Continuation
from adapterhub.serve.metrics import current_request, exposition
from adapterhub.serve.openai_api import (
    COMPLETION_TOKENS,
    Envelope,
    answer_errors,
    event_text,
    model_list,
    unless_gone,
    usage,
)
from adz_llama_cpp.requests import ChatRequest, CompletionRequest, GenerationRequest
from adz_llama_cpp.runner import Job
from adz_llama_cpp.service import Service


def create_app(service: Service) -> FastAPI:
    """The application; `serve_app` puts the doors before it."""
    app = FastAPI(openapi_url=None)
    answer_errors(app, service.refusal)

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
        return model_list(served, service.base.name, service.context)

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        version = await service.resolve(body.model)
        await asyncio.to_thread(service.apply_preset, body, version)
        body.max_tokens = body.max_tokens or COMPLETION_TOKENS
        service.warn_of_format(version, "plain")
        tokens = service.tokens_of_text(body.prompt)
        job = await asyncio.to_thread(service.job, version, tokens, body)
        return await _respond(service, request, body, Reply("text", job.name, job))

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        version = await service.resolve(body.model)
        preset = await asyncio.to_thread(service.apply_preset, body, version)
        service.warn_of_format(version, "chat")
        turns = [message.turn() for message in body.messages]
        tokens = service.tokens_of_chat(turns, preset.chat_template)
        job = await asyncio.to_thread(service.job, version, tokens, body)
        return await _respond(service, request, body, Reply("chat", job.name, job))

    return app


@dataclass(frozen=True, slots=True)
class Reply(Envelope):
    """One response: the answer to `job`."""

    job: Job

    def whole(self, answer: Continuation) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        said = {"role": "assistant", "content": answer.text}
        content = {"message": said} if self.kind == "chat" else {"text": answer.text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": answer.finish}
        return self.body([choice], self.usage(answer))

    def text(self, text: str, finish: str | None = None, *, first: bool = False) -> dict[str, Any]:
        """One event of a stream; the first of a chat says who speaks."""
        if self.kind == "text":
            return self.piece(0, {"text": text}, finish)
        delta = {"role": "assistant"} if first else {}
        delta |= {"content": text} if text or first else {}
        return self.piece(0, {"delta": delta}, finish)

    def usage(self, answer: Continuation) -> dict[str, int]:
        """How many tokens were read and written."""
        return usage(len(self.job.tokens), len(answer.tokens))


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
        await unless_gone(request, reading)
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
        yield event_text(reply.text("", first=True))
        async for text in pieces:
            yield event_text(reply.text(text))
        answer = job.done.result()
        seen.generated_tokens = len(answer.tokens)
        yield event_text(reply.text("", answer.finish))
        if counted:
            yield event_text(reply.last(reply.usage(answer)))
        yield "data: [DONE]\n\n"
    # The status line is gone already, so an error is an event too.
    except Exception as error:
        seen.broken = True
        yield event_text(service.refusal(error).body())
    finally:
        job.abandon()
