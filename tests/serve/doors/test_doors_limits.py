"""What a request may be: its size, its form, its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from adapterhub.serve.doors import answers

from .raw_client import Raw, wait_until


def test_a_declared_size_is_refused_before_it_is_sent(serve: Any) -> None:
    site = serve(body_bytes=1000)
    raw = Raw(site.port)
    raw.head("Content-Length: 1001")
    answer = raw.socket.recv(65536).decode()
    assert " 413 " in answer.splitlines()[0]
    error = json.loads(answer.partition("\r\n\r\n")[2])["error"]
    assert error["message"] == "the body is larger than 1000 bytes"
    assert site.stub.seen == []


def test_a_streamed_body_is_counted_as_it_comes(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_LINGER_SECONDS", 1.0)
    site = serve(body_bytes=1000)

    def pieces(count: int) -> Iterator[bytes]:
        yield b'{"model": "sql", "pad": "'
        for _ in range(count):
            yield b"x" * 100
        yield b'"}'

    assert site.client.post("/v1/completions", content=pieces(9)).status_code == 200
    assert site.client.post("/v1/completions", content=pieces(10)).status_code == 413
    assert site.client.post("/tokenize", content=pieces(10)).status_code == 413
    # A client that reads only after it sent everything still gets its answer.
    assert site.client.post("/v1/completions", content=pieces(20_000)).status_code == 413
    assert len(site.stub.seen) == 1
    raw = Raw(site.port)
    raw.head("Transfer-Encoding: chunked")
    assert raw.send_until_cut_off([b"400\r\n" + b"x" * 1024 + b"\r\n"] * 300, 0.01)


def test_bodies_in_memory_are_bounded_together(serve: Any) -> None:
    site = serve(body_bytes=1000, body_seconds=20)
    held = []
    for _ in range(32):
        raw = Raw(site.port)
        raw.head("Content-Length: 1000")
        raw.send("x" * 990)
        held.append(raw)
    wait_until(lambda: site.doors._bodies._room < 1000)
    answer = site.ask(pad="x" * 900)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    for raw in held:
        raw.socket.close()
    wait_until(lambda: site.doors._bodies._room == 32_000)
    assert site.ask(pad="x" * 900).status_code == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"model": "sql", "n": "5"}', "n is not a whole number"),
        (b'{"model": "sql", "best_of": -1}', "best_of is not a whole number"),
        (b'{"model": "sql", "n": 1.5}', "n is not a whole number"),
    ],
)
def test_what_is_no_request_is_refused(serve: Any, content: bytes, words: str) -> None:
    site = serve()
    answer = site.client.post("/v1/completions", content=content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert site.stub.seen == []


@pytest.mark.parametrize(
    ("path", "body", "written"),
    [
        ("completions", {"max_tokens": 100}, {"max_tokens": 100}),
        ("completions", {}, {}),
        ("completions", {"max_tokens": None}, {"max_tokens": 100}),
        ("completions", {"n": 10}, {"n": 10, "max_tokens": 10}),
        ("completions", {"prompt": [1, 2, 3]}, {"prompt": [1, 2, 3]}),
        ("completions", {"prompt": ["a"] * 50}, {"prompt": ["a"] * 50, "max_tokens": 2}),
        ("chat/completions", {}, {"max_tokens": 100}),
        ("chat/completions", {"max_completion_tokens": 7}, {"max_completion_tokens": 7}),
        ("responses", {}, {"max_output_tokens": 100}),
        ("completions", {"max_tokens": 101}, None),
        ("completions", {"max_tokens": 51, "n": 2}, None),
        ("completions", {"max_tokens": 26, "best_of": 2, "prompt": ["a", "b"]}, None),
        ("chat/completions", {"max_tokens": 1, "max_completion_tokens": 101}, None),
        ("completions", {"max_tokens": "101"}, None),
        ("completions", {"max_tokens": 101.0}, None),
        ("completions", {"max_tokens": True}, None),
        ("completions", {"prompt": ["a"] * 101}, None),
        ("responses", {"max_output_tokens": 101}, None),
    ],
)
def test_tokens_asked_for_are_bounded(serve: Any, path: str, body: Any, written: Any) -> None:
    site = serve(max_tokens=100)
    answer = site.client.post(f"/v1/{path}", json={"model": "sql", **body})
    if written is None:
        assert answer.status_code == 400
        assert site.stub.seen == []
    else:
        assert [entry["body"] for entry in site.stub.seen] == [{"model": "sql", **written}]
    assert serve().ask(max_tokens=10**6).status_code == 200
