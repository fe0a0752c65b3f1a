"""Asking a server that speaks the OpenAI API, through the official client."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from adapterhub.bases.choose import base_or_version
from adapterhub.errors import AdzError
from adapterhub.expression import is_expression, parse_expression
from adapterhub.manifest import BaseRecord
from adapterhub.plugins import is_installed
from adapterhub.protocols import Registry

if TYPE_CHECKING:
    from openai import OpenAI

PromptFormat = Literal["plain", "chat"]
Message = Mapping[str, str]

DEFAULT_URL = "http://127.0.0.1:8000/v1"

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `model` says which version answered, `finish_reason` why it ended."""

    model: str
    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, or the turns of a chat that the assistant answers."""

    prompt: str = ""
    messages: tuple[Message, ...] = ()


class Client:
    """Asks one server, from several threads if need be. Every method raises AdzError when it does
    not answer or refuses; a full server is asked again `retries` times."""

    def __init__(self, url: str, api_key: str | None, *, retries: int = 0) -> None:
        if not is_installed("openai"):
            raise AdzError("'openai' is not installed", "pip install 'adapterhub[serve]'")
        self.url = url
        # The client insists on a key, a server without keys ignores it.
        self._api_key = api_key or "none"
        self._retries = retries

    def ask(
        self,
        model: str,
        question: Question,
        prompt_format: PromptFormat,
        *,
        max_tokens: int,
        temperature: float,
    ) -> Answer:
        """The answer to one question; a chat's turns are always asked as a chat."""
        if prompt_format == "chat" or question.messages:
            turns = question.messages or ({"role": "user", "content": question.prompt},)
            return join(self.chat(model, turns, max_tokens=max_tokens, temperature=temperature))
        with self._asking() as client:
            done = client.completions.create(
                model=model, prompt=question.prompt, max_tokens=max_tokens, temperature=temperature
            )
        choice = done.choices[0]
        return Answer(done.model, choice.text, choice.finish_reason)

    def chat(
        self, model: str, messages: Sequence[Message], *, max_tokens: int, temperature: float
    ) -> Iterator[Answer]:
        """Answer a chat, piece by piece; the text of the pieces together is the answer."""
        with self._asking() as client:
            stream: Any = client.chat.completions.create(
                model=model,
                messages=messages,  # type: ignore[arg-type]
                max_tokens=max_tokens,
                temperature=temperature,
                stream=True,
            )
            # Closed when the reading ends early, so that the server stops too.
            with stream:
                for chunk in stream:
                    for choice in chunk.choices:
                        text = choice.delta.content or ""
                        yield Answer(chunk.model, text, choice.finish_reason or "")

    def is_there(self) -> bool:
        """Whether anything answers at the URL, be it with a refusal."""
        from openai import APIConnectionError, APIStatusError, OpenAI

        client = OpenAI(
            base_url=self.url, api_key=self._api_key, timeout=_CONNECT_SECONDS, max_retries=0
        )
        try:
            with client:
                client.models.list()
        except APIConnectionError:
            return False
        except APIStatusError:
            return True
        return True

    def greet(self) -> None:
        """Raise AdzError unless the server answers, and takes the key."""
        self.models()

    def models(self) -> list[str]:
        """What the server answers as, of `/v1/models`."""
        with self._asking() as client:
            cards = client.with_options(timeout=_CONNECT_SECONDS).models.list()
            return [card.id for card in cards]

    def close(self) -> None:
        """End what is being asked."""
        self._openai.close()

    @cached_property
    def _openai(self) -> OpenAI:
        from openai import OpenAI

        return OpenAI(
            base_url=self.url,
            api_key=self._api_key,
            timeout=_ANSWER_SECONDS,
            max_retries=self._retries,
        )

    @contextmanager
    def _asking(self) -> Iterator[OpenAI]:
        from openai import APIConnectionError, APIError, APIStatusError

        try:
            yield self._openai
        except APIConnectionError as error:
            # httpx says "[Errno 111] Connection refused"; the number helps nobody.
            reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error.__cause__ or error)).rstrip(".")
            untrusted = "CERTIFICATE_VERIFY_FAILED" in reason
            raise AdzError(
                f"no server answers at {self.url}: {reason}",
                "give the certificates to trust: --ca FILE"
                if untrusted
                else "start one: adz serve",
            ) from error
        except APIStatusError as error:
            raise AdzError(f"the server answered {error.status_code}: {_message(error)}") from error
        except APIError as error:
            raise AdzError(f"the answer broke off: {_message(error)}") from error


def join(pieces: Iterable[Answer]) -> Answer:
    """The whole answer of a stream."""
    model, text, finish_reason = "", "", ""
    for piece in pieces:
        model, text = piece.model, text + piece.text
        finish_reason = piece.finish_reason or finish_reason
    return Answer(model, text, finish_reason)


def prompt_format_of(registry: Registry, reference: str) -> PromptFormat | None:
    """The format that an adapter was trained on; None for a base, or where it is not known.

    Raises AdzError for a name that the registry does not know.
    """
    if is_expression(reference):
        terms = parse_expression(reference).terms
        formats = {registry.resolve(term.reference).manifest.prompt_format for term in terms}
        return formats.pop() if len(formats) == 1 else None
    found = base_or_version(registry, reference)
    return None if isinstance(found, BaseRecord) else found.manifest.prompt_format


def mismatch(reference: str, trained: PromptFormat | None, used: PromptFormat) -> str | None:
    """A warning where a prompt has another format than the adapter was trained on."""
    if trained is None or trained == used:
        return None
    return f"{reference} was trained on {trained} prompts and is asked with a {used} prompt"


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error).split())
