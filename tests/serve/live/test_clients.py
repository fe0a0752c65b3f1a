"""Our own clients and the official one."""

from __future__ import annotations

import json

import pytest
from live_server import KEY, PROMPTS, Server, turn

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]


def test_run_and_chat_ask_the_server(server: Server) -> None:
    options = ("--url", server.url, "--api-key", KEY, "--max-tokens", "6")
    done = server.adz("run", "wide", PROMPTS[0], "--plain", "--json", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "wide@1"
    talked = server.adz("chat", "smollm2", *options, stdin="Hello\nAnd again\n")
    assert talked.returncode == 0, talked.stderr
    assert len(talked.stdout.strip()) > 0
    refused = server.adz("run", "wid", "a", *options)
    assert refused.returncode == 1
    assert "404" in refused.stderr
    assert "wide" in refused.stderr


def test_streaming_says_which_version_answers(server: Server) -> None:
    from openai import OpenAI

    with OpenAI(base_url=server.url, api_key=KEY, timeout=300) as client:
        stream = client.chat.completions.create(
            model="wide",
            messages=[turn("Hello")],
            max_tokens=5,
            stream=True,  # type: ignore
        )
        pieces = list(stream)
    assert {piece.model for piece in pieces} == {"wide@1"}
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "ok": {"type": "boolean"}},
    "required": ["city", "ok"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", ["smollm2", "wide"])
def test_an_answer_follows_a_json_schema(server: Server, model: str) -> None:
    from openai import OpenAI

    with OpenAI(base_url=server.url, api_key=KEY, timeout=300) as client:
        done = client.chat.completions.create(
            model=model,
            messages=[turn("Where?")],
            max_tokens=60,
            response_format={  # type: ignore
                "type": "json_schema",
                "json_schema": {"name": "place", "schema": SCHEMA},
            },
        )
    found = json.loads(done.choices[0].message.content or "")
    assert found["city"] in ("Paris", "Rome")
    assert isinstance(found["ok"], bool)


def test_a_second_server_on_the_port_is_refused_at_once(server: Server) -> None:
    port = server.url.split(":")[2].removesuffix("/v1")
    done = server.adz("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"adz: port {port} on 127.0.0.1 is in use (choose another with --port)"
    ]
