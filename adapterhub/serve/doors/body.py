"""A request's body: read with bounds of size and time, and what it asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.expression import is_expression, parse_expression
from adapterhub.reference import parse_reference
from adapterhub.serve.doors.admission import too_many
from adapterhub.serve.errors import RequestError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# How many of the largest bodies may be in memory at once.
_LARGEST_BODIES = 32
_CLOSE = {"connection": "close"}
_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# What a completion gets that does not say how long it may be.
_COMPLETION_TOKENS = 16


class ClientGoneError(Exception):
    """Nobody waits for an answer."""


class BodyReader:
    """Reads bodies of at most `limit` bytes, each within `seconds`; all that are held at once
    are bounded, too."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._room = _LARGEST_BODIES * limit

    async def read(self, receive: Receive, declared: bytes | None) -> bytes:
        """The whole body; `declared` is its Content-Length. The caller gives its bytes back with
        `forget`. Raises RequestError 408, 413 or 429, and ClientGoneError."""
        if declared is not None and declared.isdigit() and int(declared) > self._limit:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    size += len(chunk)
                    self._room -= len(chunk)
                    chunks.append(chunk)
                    if size > self._limit:
                        raise self._too_large()
                    if self._room < 0:
                        busy = too_many("too many large requests are being read", 1, "busy")
                        busy.headers = {**busy.headers, **_CLOSE}
                        raise busy
        except TimeoutError:
            self._room += size
            what = f"the body did not arrive within {self._seconds:g} s"
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, what, None, _CLOSE) from None
        except BaseException:
            self._room += size
            raise
        return b"".join(chunks)

    def forget(self, body: bytes) -> None:
        """`body` is no longer needed."""
        self._room += len(body)

    def _too_large(self) -> RequestError:
        what = f"the body is larger than {self._limit} bytes"
        return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, None, _CLOSE)


@dataclass(slots=True)
class Asked:
    """What a body asks for. `names` are the base or the adapters of its `model`, none where that
    is neither a reference nor an expression; `sequences` is the number of answers; `token_limit`
    what each of them may have where the request does not say and the server has a limit."""

    values: dict[str, Any]
    names: tuple[str, ...]
    sequences: int
    token_limit: int | None = None

    @property
    def name(self) -> str:
        """In whose queue the request stands: a merge in that of its first adapter by name, so
        that there are no more queues than names."""
        return self.names[0] if self.names else ""

    @property
    def model(self) -> str:
        """The `model` as it was given, shortened; for messages."""
        return f"{self.values.get('model')!r:.100}"

    def bound_tokens(self, limit: int, path: str) -> bool:
        """Refuse more than `limit` tokens over all answers, and where the request leaves open
        how many it wants, write the limit into it; True where `values` changed."""
        given = [f for f in _TOKEN_FIELDS if self.values.get(f) is not None]
        for field in given:
            if _whole(self.values, field, 0) * self.sequences > limit:
                raise RequestError(
                    HTTPStatus.BAD_REQUEST,
                    f"{field} is {self.values[field]}"
                    + (f" for each of {self.sequences} answers" if self.sequences > 1 else "")
                    + f", this server gives at most {limit} tokens to a request",
                    field,
                )
        share = limit // self.sequences
        if share < 1:
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"{self.sequences} answers, this server gives at most {limit} tokens to a request",
                None,
            )
        if given:
            return False
        self.token_limit = share
        is_completion = path == "/v1/completions"
        if is_completion and "max_tokens" not in self.values and share >= _COMPLETION_TOKENS:
            return False
        self.values["max_output_tokens" if path == "/v1/responses" else "max_tokens"] = share
        return True


def parse_body(body: bytes) -> Asked:
    """Read a JSON object. Raises RequestError 400, also for a malformed expression."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not JSON", None) from None
    if not isinstance(values, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not a JSON object", None)
    choices = max(_whole(values, "n", 1), _whole(values, "best_of", 1))
    return Asked(values, _names(values.get("model")), _prompts(values.get("prompt")) * choices)


def _names(model: object) -> tuple[str, ...]:
    if not isinstance(model, str):
        return ()
    try:
        if is_expression(model):
            return parse_expression(model).names
    except AdzError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error
    try:
        return (parse_reference(model).name,)
    except AdzError:
        return ()


def _prompts(prompt: object) -> int:
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def _whole(values: dict[str, Any], field: str, otherwise: int) -> int:
    """A field that counts. Text such as "5" is refused: engines would read it as a number."""
    value = values.get(field)
    if value is None:
        return otherwise
    if type(value) is not int or value < 0:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{field} is not a whole number", field)
    return max(value, otherwise)
