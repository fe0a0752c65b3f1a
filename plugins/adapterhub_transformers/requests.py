"""What a client may ask for. What this engine cannot do is refused, never left out in silence."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapterhub.generate import Sampling
from adapterhub.serve.errors import RequestError
from adapterhub_transformers.grammar import Constraint

# Fields of the API that change nothing here when they have this value.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "echo": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "parallel_tool_calls": (True, False),
}
_HARMLESS = frozenset({"user", "metadata", "store", "safety_identifier", "service_tier"})
_MOST_CHOICES = 16


class StreamOptions(BaseModel):
    """Whether the last piece of a stream counts the tokens."""

    include_usage: bool = False


class JsonSchema(BaseModel):
    """The schema of a `response_format`; its name is for the client."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Annotated[dict[str, Any], Field(alias="schema")] = {}


class ResponseFormat(BaseModel):
    """What an answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema that the answer follows; None where any text will do."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.json_schema is None:
            raise bad_request(
                "response_format of type json_schema has no json_schema", "response_format"
            )
        return self.json_schema.schema_


class GenerationRequest(BaseModel):
    """What both kinds of request have in common. `model` is checked by the service."""

    model_config = ConfigDict(extra="allow")

    model: Any = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=_MOST_CHOICES)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    response_format: ResponseFormat | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    def refuse_unsupported(self) -> None:
        """Raise RequestError for a field that this engine does not know or cannot honour."""
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _HARMLESS or value in _NEUTRAL.get(name, ()):
                continue
            raise bad_request(
                f"the transformers engine does not support {name}={value!r:.60}", name
            )

    @property
    def scores(self) -> int | None:
        """How many alternatives of each token are told; None where no log-probability is."""
        return None

    def samplings(self, max_tokens: int, constrain: Constraint | None) -> list[Sampling]:
        """The sampling of each choice; what the request leaves open is the API's default.

        Choices have seeds that follow one another.
        """
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [
            Sampling(
                max_tokens=max_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=max(0, self.top_k or 0),
                seed=None if self.seed is None else (self.seed + number) % 2**63,
                stop=tuple(text for text in stop if text),
                logprobs=self.scores,
                constrain=constrain,
            )
            for number in range(self.n)
        ]


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`. `prompt` is text or token ids, one or several."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None

    def refuse_unsupported(self) -> None:
        """Raise RequestError for what this engine cannot honour."""
        super().refuse_unsupported()
        if self.best_of not in (None, self.n):
            raise bad_request(
                "the transformers engine answers with all choices: best_of is n", "best_of"
            )

    @property
    def scores(self) -> int | None:
        """The request's `logprobs`."""
        return self.logprobs

    def prompts(self) -> list[str | list[int]]:
        """Every prompt of the request."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [prompt for prompt in self.prompt if not isinstance(prompt, int)]


def bad_request(reason: str, param: str) -> RequestError:
    """A refusal for a field of the request."""
    return RequestError(HTTPStatus.BAD_REQUEST, reason, param)
