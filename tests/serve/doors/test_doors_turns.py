"""How many requests run at once, and whose turn it is."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

from adapterhub.serve.doors.keys import new_key

from .raw_client import Raw, wait_until


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
