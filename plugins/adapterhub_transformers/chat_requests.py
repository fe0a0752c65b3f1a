"""What a client may ask for in a chat."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapterhub_transformers.requests import GenerationRequest, bad_request


class ContentPart(BaseModel):
    """A piece of a message; only text can be read."""

    type: str
    text: str | None = None


class Function(BaseModel):
    """A function: what a tool is, or the call of one."""

    model_config = ConfigDict(extra="allow")

    name: str
    arguments: str | None = None


class Tool(BaseModel):
    """A tool, or the call of one."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"] = "function"
    function: Function


class Message(BaseModel):
    """One turn of a chat."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[Tool] | None = None
    tool_call_id: str | None = None

    def turn(self) -> dict[str, Any]:
        """The turn as a chat template reads it."""
        if isinstance(self.content, list):
            for part in self.content:
                if part.type != "text":
                    raise bad_request(f"{part.type} cannot be read, only text", "messages")
            text = "".join(part.text or "" for part in self.content)
        else:
            text = self.content or ""
        turn: dict[str, Any] = {"role": self.role, "content": text}
        if self.tool_calls:
            turn["tool_calls"] = [_template_call(call) for call in self.tool_calls]
        named = {"name": self.name, "tool_call_id": self.tool_call_id}
        return turn | {name: value for name, value in named.items() if value is not None}


class ToolChoice(BaseModel):
    """The one tool that has to be called."""

    type: Literal["function"] = "function"
    function: Function


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None

    @property
    def scores(self) -> int | None:
        """The request's `top_logprobs`, where `logprobs` is true."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def refuse_unsupported(self) -> None:
        """Raise RequestError for what this engine cannot honour, or what contradicts itself."""
        super().refuse_unsupported()
        if self.top_logprobs and not self.logprobs:
            raise bad_request("top_logprobs needs logprobs", "top_logprobs")
        if not self.offered() and self.tool_choice not in (None, "none", "auto"):
            raise bad_request("tool_choice asks for a call, and there are no tools", "tool_choice")
        if self.must_call() and self.response_format and self.response_format.type != "text":
            raise bad_request(
                "an answer cannot be a call and follow response_format", "response_format"
            )

    def offered(self) -> list[dict[str, Any]]:
        """The tools that the model is told of."""
        if self.tool_choice == "none":
            return []
        return [tool.model_dump(exclude_none=True) for tool in self.tools or []]

    def must_call(self) -> list[dict[str, Any]]:
        """The functions of which one has to be called; none where the model may choose."""
        functions = [tool["function"] for tool in self.offered()]
        if self.tool_choice == "required":
            return functions
        if not isinstance(self.tool_choice, ToolChoice):
            return []
        name = self.tool_choice.function.name
        named = [function for function in functions if function["name"] == name]
        if not named:
            raise bad_request(
                f"tool_choice names {name!r:.60}, which is none of the tools", "tool_choice"
            )
        return named


def _template_call(call: Tool) -> dict[str, Any]:
    """Templates write the arguments as JSON themselves."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError as error:
        raise bad_request("the arguments of a tool call are not JSON", "messages") from error
    return {"type": "function", "function": {"name": call.function.name, "arguments": arguments}}
