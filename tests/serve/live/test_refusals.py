"""What is not served is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_server import Server, commit, turn

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("wid", 404, "did you mean wide"),
        ("wide@9", 404, "wide"),
        ("smollm", 404, "smollm2"),
        ("", 400, "no model"),
        (None, 400, "no model"),
        ("../wide", 400, "not a valid name"),
        ("/etc/passwd", 400, "not a valid name"),
        ("./wide", 400, "not a valid name"),
        ("x" * 100_000, 400, "characters"),
    ],
)
@pytest.mark.parametrize("route", ["/completions", "/chat/completions", "//tokenize"])
def test_a_model_that_is_not_served_is_refused(
    server: Server, route: str, model: str | None, status: int, words: str
) -> None:
    body = {"prompt": "a"} if route != "/chat/completions" else {"messages": [turn("a")]}
    given, error = server.request(route, body if model is None else {**body, "model": model})
    assert given == status
    assert words in error["error"]["message"]
    assert len(error["error"]["message"]) < 300


def test_what_vllm_cannot_serve_is_refused_with_the_reason(
    server: Server, folders: dict[str, Path]
) -> None:
    commit("high", folders["high@1"])
    commit("dora", folders["dora@1"], "dora")
    commit("stray", folders["late@1"], known_base=False)
    reasons = {
        "high": "restart it with --max-rank 32",
        "dora": "use adz serve --engine transformers; dora@1 (dora) as a LoRA of rank 16 loses",
        "stray": "--base smollm2",
    }
    for model, words in reasons.items():
        status, error = server.request("/completions", {"model": model, "prompt": "a"})
        assert status == 422
        assert words in error["error"]["message"]
    _, listed = server.request("/models")
    # What may be converted is listed; how much that loses is seen at its first request.
    assert {"high", "dora", "stray"} & {card["id"] for card in listed["data"]} == {"dora"}
