"""A real vLLM in the background: its engine is killed under a request, and comes back by itself;
then it is stopped while it writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from adapterhub.serve.lifecycle.state import running_servers

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

BACK_SECONDS = 300


@pytest.fixture
def url(adz_process: Any, real_base: Path) -> Iterator[str]:
    """A vLLM in the background that answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = adz_process(
        "serve", "smollm2", "--engine", "vllm", "--detach", "--json", "--port", port, timeout=600
    )
    assert started.code == 0, started.err
    yield json.loads(started.out)["url"]
    for state in running_servers():
        os.kill(state.pid, signal.SIGKILL)


def ask(url: str, tokens: int, *, stream: bool = False) -> tuple[int, str]:
    """Status and text; (0, error) where the connection broke."""
    question = {"model": "smollm2", "prompt": "Once", "max_tokens": tokens, "temperature": 0}
    more = {"ignore_eos": True, "stream": stream}
    try:
        with httpx2.Client(timeout=200, trust_env=False) as client:
            answer = client.post(f"{url}/completions", json=question | more)
            return answer.status_code, answer.text
    except httpx2.TransportError as error:
        return 0, str(error)


def wait_for(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.1)


def in_flight(url: str) -> int:
    text = httpx2.get(url.replace("/v1", "/metrics"), trust_env=False).text
    found = [line for line in text.splitlines() if line.startswith("adapterhub_requests_in_flight")]
    return sum(int(float(line.split()[-1])) for line in found)


def ready(url: str) -> int:
    return httpx2.get(url.replace("/v1", "/ready"), trust_env=False).status_code


def test_the_engine_dies_and_is_back_and_a_stop_lets_answers_end(url: str, adz: Any) -> None:
    assert ask(url, 4)[0] == 200
    text = httpx2.get(url.replace("/v1", "/metrics"), trust_env=False).text
    assert 'adapterhub_generated_tokens_total{reference="smollm2",version="smollm2"} 4.0' in text
    assert "vllm:num_requests_running" in text
    (server,) = running_servers()

    with ThreadPoolExecutor() as pool:
        streamed = pool.submit(ask, url, 1500, stream=True)
        whole = pool.submit(ask, url, 1500)
        wait_for(lambda: in_flight(url) == 2)
        children = psutil.Process(server.pid).children(recursive=True)
        (core,) = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
        core.kill()
        # An error, whatever it is, and not a silence.
        assert whole.result(60)[0] in (0, 500, 503)
        assert "[DONE]" not in streamed.result(60)[1] or "error" in streamed.result()[1]
    wait_for(lambda: running_servers()[0].restarts == 1, BACK_SECONDS)
    wait_for(lambda: running_servers()[0].state == "ready", BACK_SECONDS)
    assert ask(url, 4)[0] == 200
    assert "vLLM ended: " in Path(server.log).read_text()

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, url, 100, stream=True)
        wait_for(lambda: in_flight(url) == 1)
        stopping = pool.submit(adz, "stop")
        wait_for(
            lambda: httpx2.get(url.replace("/v1", "/ready"), trust_env=False).status_code == 503
        )
        assert ask(url, 4)[0] == 503
        assert answer.result()[1].endswith("data: [DONE]\n\n")
        assert stopping.result().code == 0
    assert not [child for child in children if child.is_running()]
