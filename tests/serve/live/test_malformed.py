"""Requests that nobody should send: refused, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from live_server import KEY, Server
from telltale import Teller
from traffic import Client

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

REQUESTS = 1000
MESSAGES = [{"role": "user", "content": "a"}]
PLAIN = {"model": "sound", "max_tokens": 1}
VALID: dict[str, dict[str, Any]] = {
    "/v1/completions": {**PLAIN, "prompt": "a"},
    "/v1/chat/completions": {**PLAIN, "messages": MESSAGES},
    "/v1/responses": {"model": "sound", "max_output_tokens": 1, "input": "a"},
    "/v1/messages": {**PLAIN, "messages": MESSAGES},
    "/tokenize": {"model": "sound", "prompt": "a"},
    "/detokenize": {"model": "sound", "tokens": [1]},
}
FIELDS = ("model", "prompt", "messages", "input", "tokens", "max_tokens", "temperature", "top_p",
          "n", "stop", "logprobs", "seed", "stream", "user", "tools", "response_format",
          "logit_bias", "min_tokens", "stream_options", "echo", "best_of")  # fmt: skip
STRANGE: list[Any] = [
    None, True, -1, 0, 1.5, 10**30, 1e308, "", "a", "\0", "\ud800", "../../etc/passwd",
    "/etc/passwd", "file:///etc/passwd", "x " * 5000, [], [[]], [None], [-1], [10**9], {},
    {"a": {"a": {}}}, [{"role": "x"}], [{"role": "user", "content": [{"type": "image_url"}]}],
    ["a"] * 40,
]  # fmt: skip
RAW = [
    b"", b"null", b"[]", b"7", b"{", b"\xff\xfe", b'{"model": "sound"', b"{} {}", b"NaN",
    b'{"model": "sound", "model": "other", "prompt": "a", "max_tokens": 1e400}',
    b"[" * 100_000, b'{"model": "sound", "prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}",
]  # fmt: skip


def malformed(chance: random.Random) -> tuple[str, bytes]:
    """A path and a body: a valid one with a few fields spoiled or left out, or no JSON at all."""
    path = chance.choice(list(VALID))
    if chance.random() < 0.1:
        return path, chance.choice(RAW)
    body = dict(VALID[path])
    for _ in range(chance.randint(1, 3)):
        field = chance.choice([*body, *FIELDS])
        if chance.random() < 0.2:
            body.pop(field, None)
        else:
            body[field] = chance.choice(STRANGE)
    # A valid request stays a short one.
    for bound in ("max_tokens", "max_output_tokens"):
        if bound in VALID[path] and body.get(bound) is None:
            body[bound] = 1
    return path, json.dumps(body).encode()


def test_a_thousand_malformed_requests(server: Server, teller: Teller) -> None:
    version = teller.commit("sound")
    requests = [malformed(random.Random(seed)) for seed in range(REQUESTS)]
    told: Counter[int] = Counter()
    failed: list[Any] = []
    url = server.url.removesuffix("/v1")
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    async def send(http: httpx2.AsyncClient, worker: int) -> None:
        for path, body in requests[worker::8]:
            response = await http.post(url + path, content=body)
            told[response.status_code] += 1
            if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                failed.append((path, body[:300], response.status_code, response.text[:300]))

    async def main() -> None:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=120, trust_env=False) as http,
            Client(server.url) as client,
        ):
            sending = asyncio.gather(*(send(http, worker) for worker in range(8)))
            while not sending.done():
                answer = await client.complete("sound")
                assert (answer.status, answer.text) == (200, teller.words[version.reference] * 3)
            await sending

    asyncio.run(main())
    print(dict(sorted(told.items())))
    assert failed == []
    assert sum(count for status, count in told.items() if 400 <= status < 500) > REQUESTS / 2


def test_slow_and_huge_requests_disturb_nobody(server: Server, teller: Teller) -> None:
    teller.commit("calm")
    address = urlsplit(server.url)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {address.hostname}\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    )
    slow = []
    for length in (1000, 10**12):
        for _ in range(10):
            peer = socket.create_connection((address.hostname, address.port), timeout=60)
            peer.sendall(f"{head}Content-Length: {length}\r\n\r\n{{".encode())
            slow.append(peer)

    async def main() -> list[Any]:
        async with Client(server.url) as client:
            return await asyncio.gather(*(client.complete("calm") for _ in range(16)))

    answers = asyncio.run(main())
    assert {(answer.status, answer.version) for answer in answers} == {(200, "calm@1")}
    for peer in slow[10:]:
        assert b" 413 " in peer.recv(100).splitlines()[0]
    for peer in slow:
        peer.close()
