"""What a request may be, how many there may be, and whose turn it is."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import openai
import pytest

from adapterhub.serve.doors import answers, connection
from adapterhub.serve.doors.keys import new_key
from adapterhub.serve.doors.rates import Rate


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(60) as threads:
        yield threads


class Raw:
    """A client that sends what it is told, when it is told."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def head(self, *lines: str, path: str = "/v1/completions") -> None:
        self.send("\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]))

    def send_until_cut_off(self, pieces: Iterable[str | bytes], pause: float) -> bool:
        """Whether the server closed the connection before all was sent."""
        try:
            for piece in pieces:
                self.send(piece)
                time.sleep(pause)
        except OSError:
            return True
        return False

    def answer(self) -> str:
        """All that comes until the server closes."""
        text = b""
        while chunk := self.socket.recv(65536):
            text += chunk
        return text.decode(errors="replace")


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


def test_a_minute_is_any_sixty_seconds() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])
    assert [rate.take("a", 3) for now[0] in (0.0, 30.0, 59.0)] == [0, 0, 0]
    now[0] = 59.5
    assert rate.take("a", 3) == pytest.approx(0.5)
    assert rate.take("b", 3) == 0
    assert rate.take("a", None) == 0
    now[0] = 60.0
    assert rate.take("a", 3) == 0
    assert rate.take("a", 3) == pytest.approx(30)
    # Refused requests count for nothing, and a lower limit holds at once.
    assert rate.take("a", 1) == pytest.approx(60)
    now[0] = 200.0
    assert rate.take("c", 3) == 0
    assert list(rate._taken) == ["c"]


def test_requests_a_minute_of_a_key_and_of_an_adapter(serve: Any) -> None:
    site = serve(requests_per_minute=3)
    _, few = new_key("few", requests_per_minute=2)
    _, many = new_key("many")
    assert [site.ask("a", key=few).status_code for _ in range(3)] == [200, 200, 429]
    assert site.get("/v1/models", few).status_code == 429
    assert [site.ask(model, key=many).status_code for model in ("a@1", "a@prod", "b")] == [
        200,
        429,
        200,
    ]
    answer = site.ask("a", key=many)
    assert answer.json()["error"] == {
        "message": "a answers 3 requests a minute",
        "type": "RateLimitError",
        "param": None,
        "code": 429,
    }
    assert 55 <= int(answer.headers["retry-after"]) <= 60
    # A merge is a request to each of its adapters.
    merges = [site.ask("b*0.5 - c", key=many).status_code for _ in range(3)]
    assert merges == [200, 200, 429]
    alone = [site.ask(model, key=many).status_code for model in ("b", "c", "c")]
    assert alone == [429, 200, 429]


def test_no_more_than_asked_for_run_at_once(serve: Any, pool: ThreadPoolExecutor) -> None:
    site = serve(at_once=3)
    asked = [pool.submit(site.ask, f"m{n % 5}", hold=True) for n in range(10)]
    wait_until(lambda: len(site.stub.began) == 3)
    time.sleep(0.2)
    assert len(site.stub.began) == 3
    site.stub.release.set()
    assert {answer.result().status_code for answer in asked} == {200}
    assert site.doors._admission._free == 3


def test_a_full_queue_is_429_and_the_official_client_comes_again(
    serve: Any, pool: ThreadPoolExecutor
) -> None:
    site = serve(at_once=1, waiting=2)
    held = pool.submit(site.ask, "a", hold=True)
    wait_until(lambda: len(site.stub.began) == 1)
    waiting = [pool.submit(site.ask, "a") for _ in range(2)]
    wait_until(lambda: len(site.doors._admission._queues.get("a", ())) == 2)
    answer = site.ask("a")
    assert answer.status_code == 429
    assert answer.json()["error"]["message"] == "2 requests wait for a already"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    # Another adapter has a queue of its own.
    other = pool.submit(site.ask, "b")
    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{site.port}/v1", api_key="none", max_retries=3
    )
    again = pool.submit(client.completions.with_raw_response.create, model="a", prompt="x")
    time.sleep(0.2)
    site.stub.release.set()
    assert again.result().status_code == 200
    assert {f.result().status_code for f in (held, other, *waiting)} == {200}


def test_a_flood_of_one_adapter_starves_no_other(serve: Any, pool: ThreadPoolExecutor) -> None:
    site = serve(at_once=2)
    flood = [pool.submit(site.ask, "flood", stream=2, step=0.02) for _ in range(40)]
    wait_until(lambda: len(site.doors._admission._queues.get("flood", ())) > 30)
    before = len(site.stub.began)
    others = [pool.submit(site.ask, name) for name in ("b", "c", "b@2", "c")]
    for future in (*others, *flood):
        assert future.result().status_code == 200
    rest = site.stub.began[before:]
    last = max(index for index, name in enumerate(rest) if name != "flood")
    # Of three adapters each gets a turn in three, behind what was running and on its way.
    assert Counter(rest[: last + 1])["flood"] <= 8, rest
    assert len(rest) > 30


def test_an_adapter_gets_no_more_than_its_share(serve: Any, pool: ThreadPoolExecutor) -> None:
    site = serve(at_once=4, adapter_at_once=2)
    held = [pool.submit(site.ask, "a", hold=True) for _ in range(6)]
    wait_until(lambda: len(site.stub.began) == 2)
    assert site.ask("b").status_code == 200
    assert Counter(site.stub.began) == {"a": 2, "b": 1}
    site.stub.release.set()
    assert {future.result().status_code for future in held} == {200}


def test_many_answers_in_one_request_are_many(serve: Any, pool: ThreadPoolExecutor) -> None:
    site = serve(at_once=4)
    large = pool.submit(site.ask, "a", hold=True, prompt=["x", "y", "z"])
    wait_until(lambda: len(site.stub.began) == 1)
    second = pool.submit(site.ask, "b", n=2)
    wait_until(lambda: "b" in site.doors._admission._queues)
    third = pool.submit(site.ask, "c")
    wait_until(lambda: len(site.doors._admission._queues) == 2)
    assert site.stub.began == ["a"], "one place is free, and the larger request is first"
    # More than the whole engine is as much as the engine.
    fourth = pool.submit(site.ask, "d", n=100)
    site.stub.release.set()
    for future in (large, second, third, fourth):
        assert future.result().status_code == 200


def test_requests_at_once_of_a_key(serve: Any, pool: ThreadPoolExecutor) -> None:
    site = serve(at_once=8)
    _, two = new_key("two", concurrent=2)
    held = [pool.submit(site.ask, "a", key=two, hold=True) for _ in range(2)]
    wait_until(lambda: len(site.stub.began) == 2)
    answer = site.ask("b", key=two)
    assert (answer.status_code, "at once" in answer.text) == (429, True)
    site.stub.release.set()
    assert {future.result().status_code for future in held} == {200}
    assert site.ask("b", key=two).status_code == 200


def test_a_stream_comes_as_it_is_made_and_holds_its_place(serve: Any) -> None:
    site = serve(at_once=1)
    body = {"model": "a", "stream": 4, "step": 0.3}
    times = []
    with site.client.stream("POST", "/v1/completions", json=body) as answer:
        for _ in answer.iter_raw():
            times.append(time.monotonic())
            assert site.doors._admission._free == 0
    assert len(times) >= 4
    assert times[-1] - times[0] > 0.5
    wait_until(lambda: site.doors._admission._free == 1)


def test_a_client_that_goes_away_frees_its_place(serve: Any, pool: ThreadPoolExecutor) -> None:
    site = serve(at_once=1)
    with site.client.stream("POST", "/v1/completions", json={"model": "a", "stream": 10**6}) as a:
        pieces = a.iter_raw()
        next(pieces)
        assert site.doors._admission._free == 0
    wait_until(lambda: site.doors._admission._free == 1)
    held = pool.submit(site.ask, "a", hold=True)
    wait_until(lambda: site.doors._admission._free == 0)
    leaving = Raw(site.port)
    body = json.dumps({"model": "never", "hold": True})
    leaving.head(f"Content-Length: {len(body)}")
    leaving.send(body)
    wait_until(lambda: "never" in site.doors._admission._queues)
    leaving.socket.close()
    wait_until(lambda: "never" not in site.doors._admission._queues)
    site.stub.release.set()
    assert held.result().status_code == 200
    assert "never" not in site.stub.began
    assert not site.doors._admission._turns


def test_a_slow_body_holds_no_place_and_ends(serve: Any, pool: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(answers, "_LINGER_SECONDS", 0.5)
    site = serve(at_once=1, body_seconds=0.5)
    raw = Raw(site.port)
    raw.head("Content-Length: 1000")
    begun = time.monotonic()
    dripping = pool.submit(raw.send_until_cut_off, "x" * 500, 0.05)
    time.sleep(0.1)
    assert site.ask("a").status_code == 200
    answer = raw.answer()
    assert " 408 " in answer.splitlines()[0]
    assert "did not arrive within 0.5 s" in answer
    assert time.monotonic() - begun < 4
    assert dripping.result()
    assert site.doors._bodies._room == 32 * 8 * 2**20


def test_a_slow_head_ends_whatever_drips(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    site = serve()
    silent, dripping, second = Raw(site.port), Raw(site.port), Raw(site.port)
    second.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in second.socket.recv(65536)
    begun = time.monotonic()
    dripping.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
    assert dripping.send_until_cut_off((f"x-{n}: 1\r\n" for n in range(200)), 0.02)
    assert 0.3 < time.monotonic() - begun < 4
    assert second.send_until_cut_off("GET /health HTTP/1.1\r\nx: " + "x" * 60, 0.05)
    with suppress(ConnectionResetError):
        assert silent.answer() == ""
    assert time.monotonic() - begun < 8


def test_a_head_without_end_is_cut_off(serve: Any) -> None:
    site = serve()
    raw = Raw(site.port)
    raw.send("POST /v1/completions HTTP/1.1\r\nx: ")
    assert raw.send_until_cut_off(["x" * 8192] * 100, 0.005)


def test_who_never_reads_its_answer_is_cut_off(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.5)
    site = serve(at_once=1)
    raw = Raw(site.port)
    body = json.dumps({"model": "a", "stream": 10**9})
    raw.head(f"Content-Length: {len(body)}")
    raw.send(body)
    wait_until(lambda: site.doors._admission._free == 0)
    wait_until(lambda: site.doors._admission._free == 1)
    assert site.ask("b").status_code == 200
