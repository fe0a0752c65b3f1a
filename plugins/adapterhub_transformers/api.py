"""The routes of the OpenAI API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from adapterhub.errors import AdzError
from adapterhub.generate import Continuation
from adapterhub.manifest import Version
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import ServedRequest, current_request, exposition
from adapterhub_transformers.requests import ChatRequest, CompletionRequest, GenerationRequest
from adapterhub_transformers.responses import Reply, completion_logprobs
from adapterhub_transformers.service import Service
from adapterhub_transformers.worker import Job

# OpenAI's own default for completions; a chat may use the whole context.
_COMPLETION_TOKENS = 16
_POLL_SECONDS = 0.5


def create_app(service: Service) -> FastAPI:
    """The application. Whoever serves it puts doors before it."""
    app = FastAPI(openapi_url=None)
    _answer_errors(app, service)

    @app.get("/health")
    async def health() -> Response:
        alive = service.worker.is_alive()
        return Response(status_code=HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(service.metrics), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": await asyncio.to_thread(service.cards)}

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        body.refuse_unsupported()
        version = await asyncio.to_thread(service.resolve, body.model, "plain")
        await asyncio.to_thread(service.apply_preset, body, version)
        prompts = [service.tokens_of_text(prompt) for prompt in body.prompts() or [""]]
        jobs = []
        for tokens in prompts:
            room = service.room(tokens, body.max_tokens or _COMPLETION_TOKENS, "prompt")
            jobs.append(Job(version, tokens, body.sampling(room, body.logprobs)))
        return await _respond(service, request, body, jobs, Reply("text", _name(service, version)))

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        body.refuse_unsupported()
        version = await asyncio.to_thread(service.resolve, body.model, "chat")
        preset = await asyncio.to_thread(service.apply_preset, body, version)
        turns = [message.turn() for message in body.messages]
        tokens = service.tokens_of_chat(turns, preset.chat_template)
        asked = body.max_completion_tokens or body.max_tokens
        job = Job(version, tokens, body.sampling(service.room(tokens, asked, "messages")))
        return await _respond(service, request, body, [job], Reply("chat", _name(service, version)))

    return app


def _name(service: Service, version: Version | None) -> str:
    return version.reference if version else service.base.name


async def _respond(
    service: Service, request: Request, body: GenerationRequest, jobs: list[Job], reply: Reply
) -> Response:
    seen = current_request()
    seen.prompt_tokens = sum(len(job.tokens) for job in jobs)
    if body.stream:
        counted = body.stream_options is not None and body.stream_options.include_usage
        events = _stream(service, jobs, reply, counted)
        return StreamingResponse(events, media_type="text/event-stream")
    for job in jobs:
        _follow(job, seen)
        service.worker.submit(job)
    answers = await _wait(request, jobs)
    asked = isinstance(body, CompletionRequest) and body.logprobs is not None
    choices = [
        (answer, completion_logprobs(answer, service.tokenizer) if asked else None)
        for answer in answers
    ]
    return JSONResponse(reply.whole(choices, sum(len(job.tokens) for job in jobs)))


def _follow(job: Job, seen: ServedRequest) -> None:
    """Note the first text and the tokens of a job, in the thread that runs the model."""
    tell = job.on_text

    def on_text(text: str) -> None:
        seen.note_first_token()
        tell(text)

    def count(done: Future[Continuation]) -> None:
        if not done.cancelled() and done.exception() is None:
            seen.generated_tokens += len(done.result().tokens)

    job.on_text = on_text
    job.done.add_done_callback(count)


async def _wait(request: Request, jobs: Sequence[Job]) -> list[Continuation]:
    """The answers, unless the client goes away."""
    everything = asyncio.gather(*(asyncio.wrap_future(job.done) for job in jobs))
    try:
        while not (await asyncio.wait([everything], timeout=_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise RequestError(HTTPStatus.BAD_REQUEST, "the client went away", None)
        return list(await everything)
    finally:
        if not everything.done():
            everything.cancel()
            for job in jobs:
                job.abandon()


async def _stream(
    service: Service, jobs: Sequence[Job], reply: Reply, counted: bool
) -> AsyncIterator[str]:
    """Server-sent events: each piece as the worker finds it, then how each choice ended."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()

    def put(index: int, text: str | None) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, (index, text))

    def end(index: int, _: object) -> None:
        put(index, None)

    for index, job in enumerate(jobs):
        job.on_text = partial(put, index)
        _follow(job, current_request())
        job.done.add_done_callback(partial(end, index))
        service.worker.submit(job)
    try:
        if reply.kind == "chat":
            yield _event(reply.piece(0, None))
        running = len(jobs)
        while running:
            index, text = await pieces.get()
            if text is not None:
                yield _event(reply.piece(index, text))
                continue
            running -= 1
            yield _event(reply.piece(index, "", jobs[index].done.result().finish))
        if counted:
            answers = [job.done.result() for job in jobs]
            yield _event(reply.last(answers, sum(len(job.tokens) for job in jobs)))
        yield "data: [DONE]\n\n"
    # The status line is gone already, so an error is an event too.
    except Exception as error:
        yield _event(service.refusal(error).body())
    finally:
        for job in jobs:
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

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        reason = f"{error.detail}: {request.method} {request.url.path}"
        return _error(RequestError(HTTPStatus(error.status_code), reason, None))


def _error(error: RequestError) -> Response:
    return JSONResponse(error.body(), status_code=error.status)
