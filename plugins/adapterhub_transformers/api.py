"""The routes of the OpenAI API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from adapterhub.generate import Continuation, TokenScore
from adapterhub.manifest import Version
from adapterhub.serve.metrics import ServedRequest, current_request, exposition
from adapterhub.serve.openai_api import (
    COMPLETION_TOKENS,
    answer_errors,
    event_text,
    model_list,
    unless_gone,
)
from adapterhub_transformers.chat_requests import ChatRequest
from adapterhub_transformers.grammar import Constraint
from adapterhub_transformers.job import Job
from adapterhub_transformers.requests import CompletionRequest, GenerationRequest
from adapterhub_transformers.responses import ChoiceStream, Reply, usage_of
from adapterhub_transformers.service import Service


def create_app(service: Service) -> FastAPI:
    """The application. Whoever serves it puts doors before it."""
    app = FastAPI(openapi_url=None)
    answer_errors(app, service.refusal)

    @app.get("/health")
    async def health() -> Response:
        alive = service.worker.is_alive()
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
        body.refuse_unsupported()
        version = await service.resolve(body.model, "plain")
        await asyncio.to_thread(service.apply_preset, body, version)
        prompts = [service.tokens_of_text(prompt) for prompt in body.prompts() or [""]]
        constrain = await asyncio.to_thread(_constraint, service, body)
        jobs = []
        for tokens in prompts:
            room = service.room(tokens, body.max_tokens or COMPLETION_TOKENS, "prompt")
            jobs += [Job(version, tokens, each) for each in body.samplings(room, constrain)]
        reply = Reply("text", _name(service, version), service.tokenizer, body.scores is not None)
        return await _respond(service, request, body, jobs, reply)

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        body.refuse_unsupported()
        version = await service.resolve(body.model, "chat")
        preset = await asyncio.to_thread(service.apply_preset, body, version)
        tools, must_call = body.offered(), body.must_call()
        turns = [message.turn() for message in body.messages]
        tokens = service.tokens_of_chat(turns, tools, preset.chat_template)
        asked = body.max_completion_tokens or body.max_tokens
        room = service.room(tokens, asked, "messages")
        constrain = await asyncio.to_thread(_constraint, service, body, must_call)
        jobs = [Job(version, tokens, each) for each in body.samplings(room, constrain)]
        reply = Reply(
            "chat",
            _name(service, version),
            service.tokenizer,
            scored=body.scores is not None,
            tooled=bool(tools),
        )
        return await _respond(service, request, body, jobs, reply)

    return app


def _name(service: Service, version: Version | None) -> str:
    return version.reference if version else service.base.name


def _constraint(
    service: Service, body: GenerationRequest, must_call: Sequence[dict[str, Any]] = ()
) -> Constraint | None:
    if must_call:
        return service.grammars.tool_call(must_call)
    schema = body.response_format.schema_of_answer() if body.response_format else None
    return None if schema is None else service.grammars.schema(schema, "response_format")


async def _respond(
    service: Service, request: Request, body: GenerationRequest, jobs: list[Job], reply: Reply
) -> Response:
    prompt_tokens = sum(len(job.tokens) for job in jobs) // body.n
    seen = current_request()
    seen.prompt_tokens = prompt_tokens
    if body.stream:
        counted = body.stream_options is not None and body.stream_options.include_usage
        events = _stream(service, jobs, reply, prompt_tokens if counted else None)
        return StreamingResponse(events, media_type="text/event-stream")
    for job in jobs:
        _follow(job, seen)
        service.worker.submit(job)
    return JSONResponse(reply.whole(await _wait(request, jobs), prompt_tokens))


def _follow(job: Job, seen: ServedRequest) -> None:
    """Note the first text and the tokens of a job, in the thread that runs the model."""
    tell = job.on_piece

    def on_piece(text: str, scores: Sequence[TokenScore]) -> None:
        seen.note_first_token()
        if tell is not None:
            tell(text, scores)

    def count(done: Future[Continuation]) -> None:
        if not done.cancelled() and done.exception() is None:
            seen.generated_tokens += len(done.result().tokens)

    job.on_piece = on_piece
    job.done.add_done_callback(count)


async def _wait(request: Request, jobs: Sequence[Job]) -> list[Continuation]:
    """The answers, unless the client goes away."""
    try:
        everything = asyncio.gather(*(asyncio.wrap_future(job.done) for job in jobs))
        return await unless_gone(request, everything)
    finally:
        for job in jobs:
            job.abandon()


async def _stream(
    service: Service, jobs: Sequence[Job], reply: Reply, counted: int | None
) -> AsyncIterator[str]:
    """Server-sent events: each piece as the worker finds it, then how each choice ended, and the
    usage where `counted` says how many tokens the prompts have."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[int, str | None, Sequence[TokenScore]]] = asyncio.Queue()

    def put(index: int, text: str | None, scores: Sequence[TokenScore] = ()) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, (index, text, scores))

    def end(index: int, _: object) -> None:
        put(index, None)

    choices = [ChoiceStream(reply, index) for index in range(len(jobs))]
    seen = current_request()
    for index, job in enumerate(jobs):
        job.on_piece = partial(put, index)
        _follow(job, seen)
        job.done.add_done_callback(partial(end, index))
        service.worker.submit(job)
    try:
        for event in [event for choice in choices for event in choice.opening()]:
            yield event_text(event)
        running = len(jobs)
        while running:
            index, text, scores = await pieces.get()
            if text is None:
                running -= 1
                events = choices[index].end(jobs[index].done.result().finish)
            else:
                events = choices[index].piece(text, scores)
            for event in events:
                yield event_text(event)
        if counted is not None:
            yield event_text(reply.last(usage_of([job.done.result() for job in jobs], counted)))
        yield "data: [DONE]\n\n"
    # The status line is gone already, so an error is an event too.
    except Exception as error:
        seen.broken = True
        yield event_text(service.refusal(error).body())
    finally:
        for job in jobs:
            job.abandon()
