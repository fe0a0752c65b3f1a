"""Soft prompts beside adapters and the base, compared with PEFT."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
from live_server import PROMPTS, TOLERANCE, Server, assert_agrees, commit, turn

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

NAMES = {"soft@1": "soft@1", "soft": "soft@2", "ptune": "ptune@1", "words": "words@1",
         "wide": "wide@1", "smollm2": "smollm2"}  # fmt: skip
# Several blocks of the prefix cache, which begin and end alike.
LONG = "Once upon a time there was a king who had a daughter. " * 30


@pytest.fixture(scope="module")
def zoo(server: Server, folders: dict[str, Path]) -> Server:
    """The server with soft prompts, and with an adapter of the embedding (`words`)."""
    commit("soft", folders["soft@1"], "prompt")
    commit("soft", folders["soft@2"], "prompt")
    commit("ptune", folders["ptune@1"], "p_tuning")
    commit("words", folders["words@1"])
    return server


def cache_hits(server: Server) -> float:
    _, text = server.request("//metrics")
    return sum(map(float, re.findall(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)$", text, re.M)))


def test_all_kinds_in_one_batch_agree_with_peft(zoo: Server, expected: Any) -> None:
    questions = [(name, prompt) for prompt in PROMPTS for name in NAMES]
    for (name, _), answer in zip(questions, zoo.ask_all(questions), strict=True):
        assert_agrees(answer, NAMES[name], expected)
        if name != "smollm2":
            base = expected("smollm2", answer.prompt, answer.tokens)
            assert answer.logprobs != pytest.approx(base, abs=20 * TOLERANCE)


def test_versions_share_no_prefix_and_each_finds_its_own(zoo: Server, expected: Any) -> None:
    names = ("soft@1", "soft", "smollm2", "words")
    for _ in range(2):
        before = cache_hits(zoo)
        for name in names:
            (answer,) = zoo.ask_all([(name, LONG)])
            assert_agrees(answer, NAMES[name], expected)
        found = cache_hits(zoo) - before
    assert found >= 256 * len(names)


def test_a_chat_is_answered_and_counted_without_the_soft_prompt(zoo: Server) -> None:
    counts = []
    for model in ("soft", "smollm2"):
        body = {"model": model, "messages": [turn("Hello")], "max_tokens": 4}
        status, done = zoo.request("/chat/completions", body)
        assert status == 200, done
        counts.append(done["usage"]["prompt_tokens"])
    assert counts[0] == counts[1]


def test_what_cannot_be_answered_is_refused_and_nobody_else_notices(zoo: Server) -> None:
    import torch

    def ask(**fields: Any) -> tuple[int, str]:
        body = {"model": "soft", "prompt": "a", "max_tokens": 2, **fields}
        status, answer = zoo.request("/completions", body)
        return status, str(answer)

    status, message = ask(echo=True, logprobs=1)
    assert status == 400
    assert "soft prompt" in message
    # 2048 tokens are the context of a server on a CPU.
    assert ask(prompt=[5] * 2045)[0] == 400
    file = io.BytesIO()
    torch.save(torch.zeros(4, 576), file)
    status, message = ask(prompt=None, prompt_embeds=base64.b64encode(file.getvalue()).decode())
    assert status == 400
    assert "--enable-prompt-embeds" in message
    assert ask()[0] == 200
