"""Many questions, a line each, with many of them in flight: answers in the order of the lines."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.serve.client import Answer, Question


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input, counted from 1: its question, or why it has none."""

    number: int
    question: Question | AdzError


def read_lines(text: Iterable[str]) -> Iterator[Line]:
    """A question a line, empty lines left out. Where the first one begins with a brace all are
    JSON objects with `prompt` or `messages`, else all are prompts."""
    as_json: bool | None = None
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        if as_json is None:
            as_json = line.lstrip().startswith("{")
        yield Line(number, _question(line) if as_json else Question(line.rstrip("\r\n")))


def _question(line: str) -> Question | AdzError:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        return AdzError(f"this is not JSON: {error}")
    if isinstance(row, dict):
        if isinstance(row.get("prompt"), str):
            return Question(row["prompt"])
        messages = row.get("messages")
        if isinstance(messages, list) and messages and all(map(_is_message, messages)):
            return Question(messages=tuple(messages))
    return AdzError("this is no object with prompt (a text) or messages (a list of turns)")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def ask_many(
    lines: Iterable[Line], ask: Callable[[Question], Answer], *, at_once: int
) -> Iterator[tuple[Line, Answer | AdzError]]:
    """Ask every line, `at_once` in flight, and no more lines read than that ahead of the answers.

    `ask` is called from several threads; what it raises as AdzError is the line's answer.
    """
    running: deque[tuple[Line, Future[Answer] | AdzError]] = deque()
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="adz-run")
    try:
        for line in lines:
            question = line.question
            asked = question if isinstance(question, AdzError) else pool.submit(ask, question)
            running.append((line, asked))
            while len(running) > at_once or (running and _is_over(running[0][1])):
                yield _result(*running.popleft())
        while running:
            yield _result(*running.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _is_over(asked: Future[Answer] | AdzError) -> bool:
    return isinstance(asked, AdzError) or asked.done()


def _result(line: Line, asked: Future[Answer] | AdzError) -> tuple[Line, Answer | AdzError]:
    if isinstance(asked, AdzError):
        return line, asked
    try:
        return line, asked.result()
    except AdzError as error:
        return line, error
