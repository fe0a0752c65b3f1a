"""A server that is being stopped answers what it has, and takes nothing new."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


def drain(site: Any) -> threading.Event:
    """Begin to drain in the server's loop; the event is set when nothing is inside."""
    empty = threading.Event()

    async def run() -> None:
        await site.doors.drain()
        empty.set()

    asyncio.run_coroutine_threadsafe(run(), site.loop)
    for _ in range(200):
        if site.get("/ready").status_code == 503:
            return empty
        time.sleep(0.01)
    raise AssertionError("it never began to drain")


def test_what_is_inside_is_answered_and_the_rest_is_told_to_come_again(serve: Any) -> None:
    site = serve(at_once=1)
    with ThreadPoolExecutor() as pool:
        held = pool.submit(site.ask, hold=True)
        waiting = pool.submit(site.ask, "other")
        while site.stub.began != ["sql"] or site.doors._drain._inside < 2:
            time.sleep(0.005)
        assert site.get("/ready").status_code == 200
        empty = drain(site)
        refused = site.ask()
        assert refused.status_code == 503
        assert refused.json()["error"]["type"] == "ServiceUnavailableError"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        # It lives, and says so; only new work is refused.
        assert site.get("/health").status_code == 200
        assert site.get("/v1/models").status_code == 200
        assert not empty.is_set()
        site.stub.release.set()
        assert (held.result().status_code, waiting.result().status_code) == (200, 200)
    assert empty.wait(5)


def test_a_stream_runs_to_its_end(serve: Any) -> None:
    site = serve()
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(site.ask, stream=20, step=0.02)
        while not site.stub.began:
            time.sleep(0.005)
        empty = drain(site)
        assert not empty.is_set()
        assert stream.result().text.endswith("data: 19\n\n")
    assert empty.wait(5)


def test_a_client_that_goes_away_is_no_longer_waited_for(serve: Any) -> None:
    site = serve()
    with pytest.raises(Exception, match="timed out"):
        site.client.post("/v1/completions", json={"model": "sql", "hold": True}, timeout=0.3)
    assert drain(site).wait(5)


def test_an_empty_server_ends_at_once(serve: Any) -> None:
    site = serve()
    assert drain(site).wait(5)
