"""Base and adapters in one batch, compared with PEFT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live_server import BOTH, PROMPTS, TOLERANCE, Server, assert_agrees, commit

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]


def test_base_and_adapters_in_one_batch_agree_with_peft(server: Server, expected: Any) -> None:
    names = {"smollm2": "smollm2", "wide": "wide@1", "few@1": "few@1"}
    questions = [(name, prompt) for prompt in PROMPTS for name in names]
    answers = server.ask_all(questions)
    for (name, _), answer in zip(questions, answers, strict=True):
        assert_agrees(answer, names[name], expected)
    # The adapters are no copies of the base: on the same tokens they disagree with it.
    for (name, _), answer in zip(questions, answers, strict=True):
        if name != "smollm2":
            base = expected("smollm2", answer.prompt, answer.tokens)
            assert answer.logprobs != pytest.approx(base, abs=20 * TOLERANCE)


def test_the_list_of_models_names_what_is_answered(server: Server) -> None:
    status, listed = server.request("/models")
    assert status == 200
    cards = {card["id"]: card for card in listed["data"]}
    assert {"smollm2", "wide", "few"} <= set(cards)
    assert cards["wide"]["parent"] == "smollm2"
    assert cards["wide"]["digest"].startswith("sha256:")
    assert "/" not in json.dumps(cards["wide"]["root"])


def test_a_version_committed_later_answers_the_next_request(
    server: Server, folders: dict[str, Path], expected: Any
) -> None:
    status, error = server.request("/completions", {"model": "late", "prompt": "a"})
    assert status == 404
    assert "late" in error["error"]["message"]
    commit("late", folders["late@1"])
    (answer,) = server.ask_all([("late", PROMPTS[0])])
    assert_agrees(answer, "late@1", expected)


def test_a_moved_alias_answers_with_the_new_weights_at_once(
    server: Server, folders: dict[str, Path], expected: Any
) -> None:
    from adapterhub.plugins import open_registry

    registry = open_registry()
    registry.tag("few@1", "prod")
    (before,) = server.ask_all([("few@prod", PROMPTS[3])])
    assert_agrees(before, "few@1", expected)
    commit("few", folders["few@2"])
    registry.tag("few@2", "prod")
    answers = server.ask_all([("few@prod", PROMPTS[3]), ("few", PROMPTS[3]), ("few@1", PROMPTS[3])])
    for answer, reference in zip(answers, ("few@2", "few@2", "few@1"), strict=True):
        assert_agrees(answer, reference, expected)
    registry.rollback("few", "prod")
    (back,) = server.ask_all([("few@prod", PROMPTS[3])])
    assert_agrees(back, "few@1", expected)


def test_a_merge_is_served_as_the_sum_of_the_updates(server: Server, expected: Any) -> None:
    weights = ",".join(map(str, BOTH.values()))
    done = server.adz("merge", "--linear", *BOTH, "--weights", weights, "--name", "both")
    assert done.returncode == 0, done.stderr
    answers = server.ask_all([("both", prompt) for prompt in PROMPTS])
    for answer in answers:
        assert_agrees(answer, "both@1", expected)


def test_a_merge_is_made_for_a_request(server: Server, expected: Any) -> None:
    model = " + ".join(f"{reference}*{weight}" for reference, weight in BOTH.items())
    status, answer = server.request("/completions", {"model": model, "prompt": "a"})
    assert status == 200, answer
    assert answer["model"].startswith("derived/")
    for asked in server.ask_all([(model, prompt) for prompt in PROMPTS]):
        assert asked.model == answer["model"]
        assert_agrees(replace(asked, model="both@1"), "both@1", expected)
    status, error = server.request("/completions", {"model": f"{model}+*2", "prompt": "a"})
    assert (status, "expected an adapter" in error["error"]["message"]) == (400, True)
    _, listed = server.request("/models")
    assert not [card for card in listed["data"] if card["id"].startswith("derived/")]
