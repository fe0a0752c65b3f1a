"""Requests in flight at once, and what they took."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

AT_ONCE = 8
VOCABULARY = 49_000


@dataclass(frozen=True)
class Case:
    """`requests` prompts of `prompt` tokens with `answer` tokens each, 8 at a time."""

    requests: int
    prompt: int
    answer: int

    def tokens(self) -> int:
        """What the throughput counts: what is written, of a long prompt what is read."""
        return self.requests * (self.answer if self.answer >= self.prompt else self.prompt)


DECODE = Case(32, 16, 32)
PREFILL = Case(8, 512, 2)
# One full step of vLLM: for kernels that take ten times as long.
SHORT_PREFILL = Case(4, 512, 2)


def throughput(port: int, models: Sequence[str], case: Case, seed: int) -> float:
    """Tokens a second of a whole case, the models in turn. No two prompts are alike."""
    words = random.Random(seed)
    waiting = [
        (models[i % len(models)], [words.randrange(100, VOCABULARY) for _ in range(case.prompt)])
        for i in range(case.requests)
    ]
    failed: list[BaseException] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        try:
            while not failed:
                try:
                    model, prompt = waiting.pop(0)
                except IndexError:
                    return
                ask(connection, model, prompt, case.answer)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return case.tokens() / (time.perf_counter() - begun)


def ask(
    connection: http.client.HTTPConnection, model: str, prompt: list[int], answer: int
) -> dict[str, Any]:
    """One greedy answer of exactly so many tokens."""
    body = {"model": model, "prompt": prompt, "max_tokens": answer, "temperature": 0,
            "ignore_eos": True}  # fmt: skip
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        raise RuntimeError(f"{model}: {response.status} {text[:300]!r}")
    found: dict[str, Any] = json.loads(text)
    if found["usage"]["completion_tokens"] != answer:
        raise RuntimeError(f"{model}: {found['usage']}")
    return found


def first_token_seconds(port: int, model: str, seed: int) -> tuple[float, str]:
    """From the request to the answer's only token, and the model that says it answered."""
    words = random.Random(seed)
    prompt = [words.randrange(100, VOCABULARY) for _ in range(16)]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begun = time.perf_counter()
    found = ask(connection, model, prompt, 1)
    return time.perf_counter() - begun, str(found["model"])
