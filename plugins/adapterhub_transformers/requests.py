"""What a client may ask for. What this engine cannot do is refused, never left out in silence."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from adapterhub.generate import Sampling
from adapterhub.serve.errors import RequestError

# Fields of the API that change nothing here when they have this value.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}
_HARMLESS = frozenset({"user", "metadata", "store", "safety_identifier", "service_tier"})


class StreamOptions(BaseModel):
    """Whether the last piece of a stream counts the tokens."""

    include_usage: bool = False


class GenerationRequest(BaseModel):
    """What both kinds of request have in common. `model` is checked by the service."""

    model_config = ConfigDict(extra="allow")

    model: Any = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    def refuse_unsupported(self) -> None:
        """Raise RequestError for a field that this engine does not know or cannot honour."""
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _HARMLESS or value in _NEUTRAL.get(name, ()):
                continue
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"the transformers engine does not support {name}={value!r:.60}",
                name,
            )

    def sampling(self, max_tokens: int, logprobs: int | None = None) -> Sampling:
        """The request's sampling; what it leaves open is the API's default."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=tuple(text for text in stop if text),
            logprobs=logprobs,
        )


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`. `prompt` is text or token ids, one or several."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def prompts(self) -> list[str | list[int]]:
        """Every prompt of the request."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [prompt for prompt in self.prompt if not isinstance(prompt, int)]


class ContentPart(BaseModel):
    """A piece of a message; only text can be read."""

    type: str
    text: str | None = None


class Message(BaseModel):
    """One turn of a chat."""

    role: str
    content: str | list[ContentPart] | None = None

    def turn(self) -> dict[str, str]:
        """The turn as a chat template reads it."""
        if isinstance(self.content, list):
            for part in self.content:
                if part.type != "text":
                    raise RequestError(
                        HTTPStatus.BAD_REQUEST, f"{part.type} cannot be read, only text", "messages"
                    )
            text = "".join(part.text or "" for part in self.content)
        else:
            text = self.content or ""
        return {"role": self.role, "content": text}


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
