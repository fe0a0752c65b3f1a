"""Tools on vLLM, by the official client: arguments are a JSON text of what the schema says, also
by a small model that was never trained for tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live_server import KEY, Server, turn

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "ok": {"type": "boolean"}},
    "required": ["city", "ok"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "find", "parameters": SCHEMA}}
NAMED = {"type": "function", "function": {"name": "find"}}


def call(server: Server, **options: Any) -> tuple[str, str]:
    """The name and the arguments of the one tool call."""
    from openai import OpenAI

    with OpenAI(base_url=server.url, api_key=KEY, timeout=300) as client:
        done: Any = client.chat.completions.create(
            model="wide",
            messages=[turn("Where?")],  # type: ignore[list-item]
            max_tokens=80,
            temperature=0,
            tools=[TOOL],  # type: ignore[list-item]
            parallel_tool_calls=False,
            **options,
        )
        if options.get("stream"):
            deltas = [piece.choices[0].delta for piece in done if piece.choices]
            calls = [call for delta in deltas for call in delta.tool_calls or []]
            assert {call.index for call in calls} == {0}
            name = "".join(call.function.name or "" for call in calls)
            return name, "".join(call.function.arguments or "" for call in calls)
    (only,) = done.choices[0].message.tool_calls
    return only.function.name, only.function.arguments


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
def test_a_tool_that_must_be_called_is_called(server: Server, choice: Any, stream: bool) -> None:
    name, arguments = call(server, tool_choice=choice, stream=stream)
    assert name == "find"
    found = json.loads(arguments)
    assert set(found) == {"city", "ok"}
    assert found["city"] in ("Paris", "Rome")
    assert isinstance(found["ok"], bool)


def test_a_model_that_may_answers_as_without_tools_or_calls_one(server: Server) -> None:
    body = {"model": "wide", "messages": [turn("Hi")], "max_tokens": 8, "tools": [TOOL]}
    status, done = server.request("/chat/completions", body)
    assert status == 200, done
    message = done["choices"][0]["message"]
    assert message["content"] or message["tool_calls"]
