"""The doors before a real vLLM."""

from __future__ import annotations

from typing import Any

import pytest
from live_server import Server

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/load_lora_adapter", {"lora_name": "evil", "lora_path": "/tmp"}),
        ("/unload_lora_adapter", {"lora_name": "wide@1"}),
        ("//adapters", {"name": "evil", "src": "/tmp"}),
        ("//invocations", {"model": "wide", "prompt": "a"}),
        ("//inference/v1/generate", {"model": "wide", "token_ids": [1], "sampling_params": {}}),
        ("//sleep", {}),
        ("//collective_rpc", {"method": "f"}),
        ("//scale_elastic_ep", {"new_data_parallel_size": 2}),
    ],
)
def test_the_management_routes_of_vllm_are_off(server: Server, route: str, body: Any) -> None:
    status, error = server.request(route, body)
    assert status == 404
    # From the doors: vLLM itself never saw it.
    assert error["error"]["message"].startswith("Not Found: POST ")


@pytest.mark.parametrize(
    "route",
    ["/models", "/completions", "//tokenize", "//invocations", "//metrics", "//docs",
     "//openapi.json", "//version", "//load", "//ping"],
)  # fmt: skip
def test_every_route_asks_for_the_key(server: Server, route: str) -> None:
    posted = ("/completions", "//tokenize", "//invocations")
    body = {"model": "wide", "prompt": "a"} if route in posted else None
    assert server.request(route, body, key=None)[0] == 401
    assert server.request(route, body, key="wrong")[0] == 401


def test_a_key_of_some_adapters_opens_these(server: Server) -> None:
    made = server.adz("keys", "new", "some", "--models", "few")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()

    def ask(model: str) -> tuple[int, Any]:
        return server.request("/completions", {"model": model, "prompt": "a"}, key)

    status, answer = ask("few@1")
    assert (status, answer["model"]) == (200, "few@1")
    refused = {name: ask(name) for name in ("wide", "wide@1", "smollm2", "nothing", "few@9")}
    assert {status for status, _ in refused.values()} == {404}
    words = {
        error["error"]["message"].replace(repr(name), "NAME")
        for name, (_, error) in refused.items()
    }
    assert words == {"the model NAME does not exist, or this key may not use it"}
    _, listed = server.request("/models", key=key)
    assert {card["id"].partition("@")[0] for card in listed["data"]} == {"few"}
    assert server.request("//metrics", key=key)[0] == 403
    assert server.adz("keys", "rm", "some").returncode == 0
    assert ask("few@1")[0] == 401


def test_a_body_that_is_too_large_is_not_read(server: Server) -> None:
    status, error = server.request("/completions", {"model": "wide", "prompt": "a" * 9 * 2**20})
    assert status == 413
    assert "8388608 bytes" in error["error"]["message"]


def test_health_needs_no_key(server: Server) -> None:
    assert server.request("//health", key=None)[0] == 200
