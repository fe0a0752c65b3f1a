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


def chat(server: Server, **options: Any) -> Any:
    body = {"model": "calm", "messages": [turn("Hello")], "return_token_ids": True, **options}
    status, answer = server.request("/chat/completions", body)
    assert status == 200, answer
    return answer


def test_a_preset_fills_in_what_a_request_leaves_open(
    server: Server, folders: dict[str, Path], real_base_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(real_base_dir)

    def tokens(turns: list[dict[str, str]], template: str | None = None) -> list[int]:
        text = tokenizer.apply_chat_template(
            turns, chat_template=template, add_generation_prompt=True, tokenize=False
        )
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    commit("calm", folders["wide@1"])
    preset = ("--system", SYSTEM["content"], "--temperature", "0", "--max-tokens", "3")
    done = server.adz("preset", "calm", *preset)
    assert done.returncode == 0, done.stderr
    answer = chat(server)
    assert answer["prompt_token_ids"] == tokens([SYSTEM, turn("Hello")])
    assert answer["usage"]["completion_tokens"] == 3
    # Random, it would be the same once in a great while.
    greedy = chat(server, temperature=0, max_tokens=3)["choices"][0]["message"]
    assert [chat(server)["choices"][0]["message"] for _ in range(3)] == [greedy] * 3

    other = {"role": "system", "content": "Be brief."}
    asked = chat(server, messages=[other, turn("Hello")], max_tokens=2)
    assert asked["prompt_token_ids"] == tokens([other, turn("Hello")])
    assert asked["usage"]["completion_tokens"] == 2

    file = tmp_path / "template.jinja"
    file.write_text(TEMPLATE)
    done = server.adz("preset", "calm", "--chat-template", str(file))
    assert done.returncode == 0, done.stderr
    assert chat(server)["prompt_token_ids"] == tokens([SYSTEM, turn("Hello")], TEMPLATE)
    # A client brings none, and the base has its own.
    body = {"model": "calm", "messages": [turn("a")], "chat_template": TEMPLATE}
    assert server.request("/chat/completions", body)[0] == 400
    assert chat(server, model="smollm2", max_tokens=1)["prompt_token_ids"] == tokens(
        [turn("Hello")]
    )
