"""Our own clients and the official one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from live_server import KEY, PROMPTS, TOLERANCE, Server, turn

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


def test_a_chat_has_the_log_probabilities_of_its_tokens(server: Server, expected: Any) -> None:
    from openai import OpenAI

    with OpenAI(base_url=server.url, api_key=KEY, timeout=300) as client:
        done: Any = client.chat.completions.create(
            model="wide",
            messages=[turn("Hello")],  # type: ignore[list-item]
            max_tokens=6,
            temperature=0,
            logprobs=True,
            top_logprobs=2,
            extra_body={"return_token_ids": True},
        )
    (choice,) = done.choices
    found = [entry.logprob for entry in choice.logprobs.content]
    assert found == pytest.approx(
        expected("wide@1", done.prompt_token_ids, choice.token_ids), abs=TOLERANCE
    )
    assert [entry.top_logprobs[0].logprob for entry in choice.logprobs.content] == found


def test_the_llm_command_asks_and_streams(server: Server, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: zoo\n  model_name: wide\n  api_base: {server.url}\n  api_key_name: zoo\n"
    )
    # Other plugins of llm's that happen to be installed are not what is tested.
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
    asked = ["-m", "zoo", "--key", KEY, "-o", "temperature", "0", "-o", "max_tokens", "12", "Hi"]
    done = subprocess.run(
        [sys.executable, "-m", "llm", *asked],
        env=environment,
        capture_output=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    body = {"model": "wide", "messages": [turn("Hi")], "max_tokens": 12, "temperature": 0}
    _, answer = server.request("/chat/completions", body)
    wanted = answer["choices"][0]["message"]["content"]
    assert done.stdout.decode(errors="replace").rstrip("\n") == wanted.rstrip("\n")


def test_a_second_server_on_the_port_is_refused_at_once(server: Server) -> None:
    port = server.url.split(":")[2].removesuffix("/v1")
    done = server.adz("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"adz: port {port} on 127.0.0.1 is in use (choose another with --port)"
    ]
