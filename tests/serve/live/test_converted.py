"""An adapter of a method that vLLM does not know, converted at its first request."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live_server import PROMPTS, TOLERANCE, Server, assert_agrees, commit

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]


def first_answer(server: Server, model: str) -> dict[str, Any]:
    """The server says when to come again while it is made."""
    deadline = time.monotonic() + 600
    while True:
        status, answer = server.request("/completions", {"model": model, "prompt": "a"})
        if status != 503:
            assert status == 200, answer
            found: dict[str, Any] = answer
            return found
        assert time.monotonic() < deadline, answer
        time.sleep(5)


def test_a_loha_answers_as_peft_does(
    server: Server, folders: dict[str, Path], expected: Any
) -> None:
    commit("odd", folders["odd@1"], "loha")
    _, listed = server.request("/models")
    cards = {card["id"]: card for card in listed["data"]}
    assert (cards["odd"]["converted"], cards["wide"]["converted"]) == (True, False)
    model = first_answer(server, "odd")["model"]
    assert model.startswith("derived/")
    answers = server.ask_all([("odd", prompt) for prompt in PROMPTS])
    for answer in answers:
        assert answer.model == model
        assert_agrees(replace(answer, model="odd@1"), "odd@1", expected)
    base = [expected("smollm2", answer.prompt, answer.tokens) for answer in answers]
    assert [a.logprobs for a in answers] != [pytest.approx(b, abs=20 * TOLERANCE) for b in base]
