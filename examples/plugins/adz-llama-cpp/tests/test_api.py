"""Requests: what answers them, and what is refused. llama.cpp is a stand-in."""

from __future__ import annotations

import json

import pytest
from adz_llama_cpp.api import create_app
from adz_llama_cpp.files import GgufFiles
from adz_llama_cpp.runner import Runner
from adz_llama_cpp.service import Service, only_converted
from fake_llama import FakeLlama
from fastapi.testclient import TestClient

from adapterhub.derived.served import Derived
from adapterhub.hub.home import Quiet
from adapterhub.models import load_tokenizer
from adapterhub.protocols import Derivations
from adapterhub.serve.metrics import Metrics
from adapterhub.testing.adapters import commit_tiny_lora


@pytest.fixture
def client(tiny_base, registry):
    tokenizer, metrics = load_tokenizer(tiny_base), Metrics()
    runner = Runner(
        FakeLlama(320), tokenizer, frozenset({3}),
        slots=2, max_resident=2, residency=metrics.residency,
    )  # fmt: skip
    service = Service(
        registry, tiny_base, tokenizer, GgufFiles("f32"), runner, 64, Quiet(),
        metrics, Derived(Derivations(), 512, only_converted),
    )  # fmt: skip
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield client
    runner.stop()


def complete(client, model, **body):
    given = {"model": model, "prompt": "ab", "max_tokens": 8, "temperature": 0, **body}
    return client.post("/v1/completions", json=given)


def text(client, model):
    answer = complete(client, model)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def test_base_and_versions_answer_and_an_alias_moves(client, adz, tiny_base, tmp_path):
    for seed in (1, 2):
        commit_tiny_lora(tiny_base, tmp_path / str(seed), "sql", 4, seed=seed)
    assert {"tiny", "sql", "sql@1"} <= {m["id"] for m in client.get("/v1/models").json()["data"]}
    first, second = text(client, "sql@1"), text(client, "sql")
    assert len({text(client, "tiny"), first, second}) == 3
    assert complete(client, "sql").json()["model"] == "sql@2"
    for number, answer in ((1, first), (2, second)):
        assert adz("tag", f"sql@{number}", "prod").code == 0
        given = complete(client, "sql@prod").json()
        assert (given["model"], given["choices"][0]["text"]) == (f"sql@{number}", answer)
    commit_tiny_lora(tiny_base, tmp_path / "3", "sql", 4, seed=3)
    assert complete(client, "sql").json()["model"] == "sql@3"


@pytest.mark.parametrize("kind", ["completions", "chat/completions"])
def test_a_stream_is_the_answer_in_pieces(client, tiny_adapters, kind):
    asked = {"prompt": "ab"} if kind == "completions" else {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "ab"}]}]
    }  # fmt: skip
    body = {"model": "tiny-a", "max_tokens": 8, "temperature": 0, **asked}
    whole = client.post(f"/v1/{kind}", json=body).json()
    streamed = client.post(
        f"/v1/{kind}", json={**body, "stream": True, "stream_options": {"include_usage": True}}
    )
    *lines, done = [line for line in streamed.text.split("\n\n") if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert done == "data: [DONE]"
    assert {event["model"] for event in events} == {"tiny-a@1"}
    assert events[-1]["usage"] == whole["usage"]
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    pieces = [event["choices"][0] for event in events[:-1]]
    if kind == "completions":
        assert "".join(piece["text"] for piece in pieces) == whole["choices"][0]["text"]
    else:
        said = "".join(piece["delta"].get("content", "") for piece in pieces)
        assert said == whole["choices"][0]["message"]["content"]
        assert pieces[0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"model": "nobody"}),
        (400, {"model": None}),
        (400, {"n": 2}),
        (400, {"logprobs": 1}),
        (400, {"frequency_penalty": 0.5}),
        (400, {"max_tokens": 1000}),
        (400, {"prompt": []}),
        (400, {"prompt": [9999]}),
    ],
)
def test_what_is_refused_is_an_error_of_the_api(client, status, body):
    answer = complete(client, **{"model": "tiny", **body})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_what_llama_cpp_has_not_is_422_with_the_reason(client, registry, tiny_base, tmp_path):
    version = commit_tiny_lora(tiny_base, tmp_path / "a", "sql", 2)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    config["layer_replication"] = [[0, 2]]
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    registry.commit(
        version.manifest.model_copy(update={"files": {}, "version": 0, "payload": ""}),
        tmp_path / "a",
    )
    answer = complete(client, "sql")
    assert answer.status_code == 422
    assert (
        answer.json()["error"]["message"] == "llama.cpp has no layer_replication, which sql@2 uses"
    )
    assert text(client, "sql@1")
