"""Clients that send or read slowly, or never come to an end."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest

from adapterhub.serve.doors import answers, connection

from .raw_client import Raw, wait_until


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
