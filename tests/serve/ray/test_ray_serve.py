"""A real Ray cluster on this machine, with two replicas of the embedded engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest

from adapterhub.protocols import ServeSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

KEY = "a-key-for-the-tests"


@dataclass
class Served:
    url: str
    process: subprocess.Popen[str]

    def ask(self, model: str, **more: Any) -> httpx2.Response:
        question = {"model": model, "prompt": "Hello", "max_tokens": 4, "temperature": 0} | more
        return httpx2.post(
            f"{self.url}/completions",
            json=question,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=100,
            trust_env=False,
        )

    def text(self, model: str) -> str:
        answer = self.ask(model)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        return text


@pytest.fixture
def served(home: Path, commit_adapter: Any, tmp_path: Path) -> Iterator[Served]:
    pytest.importorskip("ray")
    for seed in range(4):
        commit_adapter(f"a{seed}", seed=seed)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "adapterhub.cli", "serve", "tiny", "--ray", "--replicas", "2",
             "--engine", "transformers", "--port", str(port), "--json"],
            env={**os.environ, "ADZ_SERVE_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        announced = ""
        for line in iter(process.stdout.readline, ""):
            announced += line
            if line == "}\n":
                break
        if not announced:
            pytest.fail((tmp_path / "err").read_text())
        yield Served(json.loads(announced)["url"], process)
        if process.poll() is None:
            process.kill()


def test_two_replicas_answer_like_one_server(served: Served, commit_adapter: Any) -> None:
    replicas, texts = {}, {}
    for name in ("a0", "a1", "a2", "a3"):
        answers = [served.ask(name) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["model"] for answer in answers} == {f"{name}@1"}
        texts[name] = answers[0].json()["choices"][0]["text"]
        assert {answer.json()["choices"][0]["text"] for answer in answers} == {texts[name]}
        replicas[name] = {answer.headers["x-adapterhub-replica"] for answer in answers}
    # One adapter, one replica; and not all of them in the same one.
    assert all(len(found) == 1 for found in replicas.values()), replicas
    assert len(set.union(*replicas.values())) == 2, replicas
    assert len(set(texts.values())) > 1
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(served.text, [*texts] * 4)) == [*texts.values()] * 4
    check_clients(served, texts["a0"])
    # What is committed while it runs answers the next request, wherever it goes.
    commit_adapter("late", seed=9)
    assert served.ask("late").json()["model"] == "late@1"
    check_end(served)


def check_clients(served: Served, text: str) -> None:
    with openai.OpenAI(base_url=served.url, api_key=KEY) as client:
        assert {"tiny", "a0", "a3"} <= {card.id for card in client.models.list()}
        stream = client.completions.create(
            model="a0", prompt="Hello", max_tokens=4, temperature=0, stream=True
        )
        pieces = [chunk.choices[0].text for chunk in stream]
        assert len(pieces) > 1
        assert "".join(pieces) == text
        with pytest.raises(openai.NotFoundError, match=r"unknown adapter 'a9' \(did you mean"):
            client.completions.create(model="a9", prompt="x")
    with (
        openai.OpenAI(base_url=served.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.completions.create(model="a0", prompt="x")
    huge = served.ask("a0", prompt="x" * (9 << 20))
    assert huge.status_code == 413


def check_end(served: Served) -> None:
    """SIGTERM ends it and all that it started."""
    own = psutil.Process(served.process.pid).children(recursive=True)
    assert len(own) > 2
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0
    _, alive = psutil.wait_procs(own, timeout=20)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_replica_is_told_what_the_server_was() -> None:
    pytest.importorskip("ray")
    from adapterhub_ray.engine import arguments

    settings = ServeSettings(
        "tiny", max_rank=16, replica_engine="vllm", extra=("--enforce-eager",), keys=True
    )
    given = arguments(settings)
    assert given[0] == "tiny"
    assert given[given.index("--engine") + 1] == "vllm"
    assert given[given.index("--max-rank") + 1] == "16"
    assert given[-3:] == ("--keys", "--", "--enforce-eager")
    assert "--max-context" not in given
    assert "--no-keys" in arguments(ServeSettings("tiny"))
