"""What the official client may ask of the embedded engine beyond a plain answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from adapterhub.protocols import ServeSettings
from adapterhub.serve.examples import example_requests
from adapterhub.testing import write_tiny_base

from ..embedded_server import embedded_server

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": {{ call.function.name | tojson }}, '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a day.",
        "parameters": {
            "type": "object",
            "properties": {"day": {"enum": ["monday", "friday"]}, "hour": {"enum": [9, 18]}},
            "required": ["day", "hour"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "ok": {"type": "boolean"}},
    "required": ["city", "ok"],
    "additionalProperties": False,
}
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: Any) -> Iterator[openai.OpenAI]:
    """A server of the tiny base with a chat template that shows tools."""
    from adapterhub.cli import main
    from adapterhub.plugins import load_plugins

    folder = write_tiny_base(tmp_path_factory.mktemp("tools") / "tiny-tools")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADZ_HOME", str(tmp_path_factory.mktemp("home")))
        load_plugins.cache_clear()
        assert main(["base", "add", "tiny", str(folder)]) == 0
        with embedded_server(ServeSettings("tiny")) as (url, _):
            yield openai.OpenAI(base_url=f"{url}/v1", api_key="no", max_retries=0)
    load_plugins.cache_clear()


def chat(client: openai.OpenAI, **options: Any) -> Any:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 60, "temperature": 0}
    return client.chat.completions.create(**{**asked, **options})


def test_an_answer_follows_a_json_schema(client: openai.OpenAI) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    for options in ({}, {"temperature": 1.5, "seed": 3}):
        answer = chat(client, response_format=asked, **options).choices[0]
        found = json.loads(answer.message.content)
        assert answer.finish_reason == "stop"
        assert found["city"] in ("Paris", "Rome")
        assert isinstance(found["ok"], bool)
    pieces = list(chat(client, response_format=asked, stream=True))
    joined = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert json.loads(joined) == json.loads(chat(client, response_format=asked)
                                            .choices[0].message.content)  # fmt: skip
    text = client.completions.create(
        model="tiny", prompt="x", max_tokens=60, extra_body={"response_format": asked}
    )
    assert set(json.loads(text.choices[0].text)) == {"city", "ok"}


def test_any_json_object_begins_with_a_brace(client: openai.OpenAI) -> None:
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=5)
    assert answer.choices[0].message.content.startswith("{")


def test_a_required_tool_is_called_with_its_arguments(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        answer = chat(client, tools=[WEATHER], tool_choice=choice, max_tokens=120).choices[0]
        call = answer.message.tool_calls[0]
        assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
        arguments = json.loads(call.function.arguments)
        assert call.function.name == "weather"
        assert arguments["day"] in ("monday", "friday")
        assert arguments["hour"] in (9, 18)
        assert call.id
    turns = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    after = chat(client, messages=turns, tools=[WEATHER], tool_choice="none", max_tokens=3)
    assert after.choices[0].finish_reason == "length"


def test_a_call_comes_whole_in_a_stream(client: openai.OpenAI) -> None:
    asked = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 120}
    whole = chat(client, **asked).choices[0].message
    pieces = list(chat(client, stream=True, **asked))
    deltas = [piece.choices[0].delta for piece in pieces]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert [call.index for call in calls] == [0]
    wanted = whole.tool_calls[0].function
    assert (calls[0].function.name, calls[0].function.arguments) == (wanted.name, wanted.arguments)
    assert not any(delta.content for delta in deltas)
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


def test_choices_have_seeds_of_their_own(client: openai.OpenAI) -> None:
    asked = {"temperature": 1.5, "seed": 7, "max_tokens": 12}
    answer = chat(client, n=3, **asked)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    alone = [chat(client, **{**asked, "seed": seed}) for seed in (7, 8, 9)]
    assert texts == [one.choices[0].message.content for one in alone]
    assert answer.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)
    assert answer.usage.prompt_tokens == chat(client, max_tokens=1).usage.prompt_tokens
    streamed = {0: "", 1: "", 2: ""}
    for piece in chat(client, n=3, stream=True, **asked):
        streamed[piece.choices[0].index] += piece.choices[0].delta.content or ""
    assert list(streamed.values()) == texts


def test_the_likeliest_token_alone_is_greedy(client: openai.OpenAI) -> None:
    greedy = chat(client, max_tokens=12).choices[0].message.content
    only = chat(client, max_tokens=12, temperature=1.5, extra_body={"top_k": 1})
    assert only.choices[0].message.content == greedy


def test_a_chat_tells_log_probabilities_whole_and_streamed(client: openai.OpenAI) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 6}
    whole = chat(client, **asked).choices[0].logprobs.content
    text = client.completions.create(
        model="tiny", prompt="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        max_tokens=6, temperature=0, logprobs=2,
    ).choices[0].logprobs  # fmt: skip
    assert [score.logprob for score in whole] == pytest.approx(text.token_logprobs, abs=1e-4)
    assert [score.top_logprobs[0].token for score in whole] == [score.token for score in whole]
    assert all(len(score.top_logprobs) == 2 for score in whole)
    pieces = [piece.choices[0].logprobs for piece in chat(client, stream=True, **asked)]
    streamed = [score for logprobs in pieces if logprobs for score in logprobs.content]
    assert streamed == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "none of the tools"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"response_format": {"type": "json_schema"}}, "no json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "nothing"}}}}, "cannot be followed"),
        ({"top_logprobs": 2}, "needs logprobs"),
        ({"n": 99}, "less than or equal to 16"),
        ({"extra_body": {"min_tokens": 3}}, "does not support min_tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(
    client: openai.OpenAI, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        chat(client, **options)


def test_there_are_no_embeddings(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings"):
        client.embeddings.create(model="tiny", input="x")


def test_a_template_without_tools_refuses_them(tiny_base: Any, tiny_base_dir: Path) -> None:
    from transformers import AutoTokenizer

    from adapterhub.data import render_turns
    from adapterhub.errors import AdzError

    with pytest.raises(AdzError, match="shows no tools"):
        render_turns(HELLO, AutoTokenizer.from_pretrained(tiny_base_dir), tools=[WEATHER])


def test_text_and_calls_are_parted_wherever_the_pieces_end() -> None:
    from adapterhub_transformers.tools import ToolReader

    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    text = f"a < b <tool{call}\nthen{call} <tool_call>no</tool_call> end <tool_c"
    for size in (1, 3, 7, 1000):
        reader = ToolReader()
        parts = [reader.feed(text[at : at + size]) for at in range(0, len(text), size)]
        content = "".join(parts) + reader.end()
        assert content == "a < b <tool\nthen <tool_call>no</tool_call> end <tool_c"
        assert [c["function"] for c in reader.calls] == [{"name": "f", "arguments": '{"a": 1}'}] * 2


def test_the_examples_that_adz_serve_prints_are_answered(client: openai.OpenAI, home: Path) -> None:
    url = str(client.base_url).rstrip("/")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    answers = []
    for line in example_requests(url, "tiny", needs_key=False):
        done = subprocess.run(
            ["bash", "-c", line],
            env={**os.environ, "PATH": path, "ADZ_HOME": str(home)},
            capture_output=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    assert json.loads(answers[0])["model"] == "tiny"
    assert all(answers)


def test_the_llm_command_asks_and_streams(client: openai.OpenAI, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: zoo\n  model_name: tiny\n  api_base: {client.base_url}\n"
    )
    asked = ["-m", "zoo", "-o", "temperature", "0", "-o", "max_tokens", "12", "Hi"]
    # Other plugins of llm's that happen to be installed are not what is tested.
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
    command = [sys.executable, "-m", "llm", *asked]
    done = subprocess.run(
        command, env=environment, capture_output=True, timeout=100, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    wanted = chat(client, max_tokens=12).choices[0].message.content
    assert done.stdout.decode(errors="replace").rstrip("\n") == wanted.rstrip("\n")
