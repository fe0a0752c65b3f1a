"""What a version's preset says is what vLLM does, until a request says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live_server import Server, commit, turn

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

SYSTEM = {"role": "system", "content": "You answer in one word."}
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def chat(server: Server, model: str = "calm", **options: Any) -> Any:
    body = {"model": model, "messages": [turn("Hello")], "return_token_ids": True, **options}
    status, answer = server.request("/chat/completions", body)
    assert status == 200, answer
    return answer


@pytest.fixture
def tokens(real_base_dir: Path) -> Any:
    """A chat as transformers renders it, in tokens."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(real_base_dir)

    def rendered(*turns: dict[str, str], template: str | None = None) -> Any:
        text = tokenizer.apply_chat_template(
            list(turns), chat_template=template, add_generation_prompt=True, tokenize=False
        )
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return rendered


def test_a_preset_fills_in_what_a_request_leaves_open(
    server: Server, folders: dict[str, Path], tokens: Any
) -> None:
    commit("calm", folders["wide@1"])
    preset = ("--system", SYSTEM["content"], "--temperature", "0", "--max-tokens", "3")
    done = server.adz("preset", "calm", *preset)
    assert done.returncode == 0, done.stderr
    answer = chat(server)
    assert answer["prompt_token_ids"] == tokens(SYSTEM, turn("Hello"))
    assert answer["usage"]["completion_tokens"] == 3
    # Random, it would be the same once in a great while.
    greedy = chat(server, temperature=0, max_tokens=3)["choices"][0]["message"]
    assert [chat(server)["choices"][0]["message"] for _ in range(3)] == [greedy] * 3

    other = {"role": "system", "content": "Be brief."}
    asked = chat(server, messages=[other, turn("Hello")], max_tokens=2)
    assert asked["prompt_token_ids"] == tokens(other, turn("Hello"))
    assert asked["usage"]["completion_tokens"] == 2


def test_a_chat_template_is_that_of_the_version_that_chose_it(
    server: Server, folders: dict[str, Path], tokens: Any, tmp_path: Path
) -> None:
    commit("square", folders["wide@1"])
    file = tmp_path / "template.jinja"
    file.write_text(TEMPLATE)
    done = server.adz("preset", "square", "--chat-template", str(file))
    assert done.returncode == 0, done.stderr
    answer = chat(server, "square", max_tokens=1)
    assert answer["prompt_token_ids"] == tokens(turn("Hello"), template=TEMPLATE)
    answer = chat(server, "smollm2", max_tokens=1)
    assert answer["prompt_token_ids"] == tokens(turn("Hello"))
    # A client brings none.
    body = {"model": "square", "messages": [turn("a")], "chat_template": TEMPLATE}
    assert server.request("/chat/completions", body)[0] == 400
