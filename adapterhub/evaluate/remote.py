"""Answers from a server that speaks the OpenAI API, all questions in flight at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from adapterhub.errors import AdzError
from adapterhub.evaluate.questions import Question
from adapterhub.protocols import Task

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

_IN_FLIGHT = 64
# A small machine may take minutes for the last of many requests.
_TIMEOUT_SECONDS = 1800.0


class RemoteAnswerer:
    """Asks `url` (ending in /v1)."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self.engine = "openai-api"
        self._url = url
        # The client insists on a key, a server without keys ignores it.
        self._api_key = api_key or "none"

    def answer(self, questions: Sequence[Question], task: Task) -> list[str]:
        """See `Answerer`."""
        return asyncio.run(self._answer(questions, task))

    async def _answer(self, questions: Sequence[Question], task: Task) -> list[str]:
        from openai import APIConnectionError, APIStatusError, AsyncOpenAI

        gate = asyncio.Semaphore(_IN_FLIGHT)

        async def ask(client: AsyncOpenAI, question: Question) -> str:
            async with gate:
                text = await _ask(client, question)
            task.advance(1, question.subject.name)
            return text

        try:
            async with (
                AsyncOpenAI(
                    base_url=self._url, api_key=self._api_key, timeout=_TIMEOUT_SECONDS
                ) as client,
                asyncio.TaskGroup() as group,
            ):
                asked = [group.create_task(ask(client, question)) for question in questions]
        except* APIConnectionError as failed:
            reason = failed.exceptions[0].__cause__ or failed.exceptions[0]
            raise AdzError(
                f"no server answers at {self._url}: {reason}", "start one: adz serve"
            ) from failed
        except* APIStatusError as failed:
            first = cast("APIStatusError", failed.exceptions[0])
            raise AdzError(
                f"{self._url} answered {first.status_code}: {_reason(first)}"
            ) from failed
        return [task.result() for task in asked]


async def _ask(client: AsyncOpenAI, question: Question) -> str:
    if question.prompt_format == "plain":
        done = await client.completions.create(
            model=question.subject.model,
            prompt=question.text(),
            max_tokens=question.max_tokens,
            temperature=0,
            stop=list(question.stop) or None,
        )
        return done.choices[0].text
    chat = await client.chat.completions.create(
        model=question.subject.model,
        messages=cast("list[ChatCompletionMessageParam]", question.messages()),
        max_tokens=question.max_tokens,
        temperature=0,
    )
    return chat.choices[0].message.content or ""


def _reason(error: object) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error).split())
