"""Requests by schemathesis from the server's own OpenAPI schema, through the doors that stand
before vLLM too: none fails inside, and nobody else notices. TEST_FUZZ_REQUESTS says how many."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis import GenerationMode

from adapterhub.protocols import Limits, ServeSettings
from adapterhub_transformers.api import create_app

from ..embedded_server import embedded_server

REQUESTS = int(os.environ.get("TEST_FUZZ_REQUESTS", "200"))
ROUTES = ("/v1/completions", "/v1/chat/completions")
MODELS = ("sql", "sql@1", "tiny", "sql*0.5+french*0.5", "sqll", "../../etc/passwd")


@pytest.fixture
def server(tiny_base: Any, commit_adapter: Any) -> Iterator[tuple[str, Any]]:
    """The address, and the schema of the application there."""
    commit_adapter("sql", seed=1)
    commit_adapter("french", seed=2)
    with embedded_server(ServeSettings("tiny", limits=Limits(max_tokens=8))) as (url, service):
        yield url, schemathesis.openapi.from_dict(create_app(service).openapi())


class Neighbour:
    """Asks the same thing over and over, and keeps every answer."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/completions"
        self.answers: Counter[tuple[int, str]] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        body = {"model": "sql", "prompt": "The quick", "max_tokens": 8, "temperature": 0}
        with httpx2.Client(timeout=120, trust_env=False) as client:
            while not self._over.is_set():
                answer = client.post(self._url, json=body)
                text = answer.json()["choices"][0]["text"] if answer.is_success else answer.text
                self.answers[answer.status_code, text] += 1


def send_all(url: str, cases: Any, count: int) -> Counter[int]:
    """How often each status was answered. Half of the bodies name a model that may be there."""
    told: Counter[int] = Counter()

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, model=strategies.sampled_from([None, *MODELS]))
    def send(case: Any, model: str | None) -> None:
        if model is not None and isinstance(case.body, dict):
            case.body = {**case.body, "model": model}
        response = case.call(base_url=url, timeout=120)
        told[response.status_code] += 1
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    send()
    return told


def test_requests_made_from_the_schema(server: tuple[str, Any]) -> None:
    url, schema = server
    told: Counter[int] = Counter()
    with Neighbour(url) as neighbour:
        for route in ROUTES:
            operation = schema[route]["POST"]
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                cases = operation.as_strategy(generation_mode=mode)
                told += send_all(url, cases, REQUESTS // 4)
    print(dict(sorted(told.items())))
    assert told.total() >= REQUESTS * 0.9
    # Some were right, and most were not.
    assert told[200] > 0
    assert told.total() - told[200] > REQUESTS / 4
    ((status, text),) = neighbour.answers
    assert (status, bool(text)) == (200, True)
    assert neighbour.answers.total() > 3
