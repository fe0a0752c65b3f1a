"""What a user of an engine relies on: the API, over a real socket, of a real `adz serve`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any, ClassVar

import httpx2
import pytest

from adapterhub import specs
from adapterhub.testing.adapters import commit_tiny_lora
from adapterhub.testing.conformance.base import Conformance, check_refusal
from adapterhub.testing.fixtures import Adz

_PROMPT = "The quick brown"


@dataclass(frozen=True, slots=True)
class Server:
    """A running `adz serve`: its URL (ends with `/v1`) and its process."""

    url: str
    process: subprocess.Popen[str]

    def models(self) -> list[str]:
        """The ids of `/v1/models`."""
        answer = httpx2.get(f"{self.url}/models")
        assert answer.status_code == 200, answer.text
        return [model["id"] for model in answer.json()["data"]]

    def complete(self, model: object, **body: Any) -> httpx2.Response:
        """POST `/v1/completions`, greedy."""
        given = {"model": model, "prompt": _PROMPT, "max_tokens": 8, "temperature": 0, **body}
        return httpx2.post(f"{self.url}/completions", json=given, timeout=120)

    def text(self, model: str) -> str:
        """What `model` answers."""
        answer = self.complete(model)
        assert answer.status_code == 200, f"{model}: {answer.status_code} {answer.text}"
        text: str = answer.json()["choices"][0]["text"]
        return text

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and what was written to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


class EngineConformance(Conformance):
    """Of an engine: `name = "mine"`. arguments: more for `adz serve`.

    seconds: how long it may take until it answers.
    """

    kind: ClassVar[type[specs.Component]] = specs.Engine
    arguments: ClassVar[Sequence[str]] = ()
    seconds: ClassVar[float] = 120

    @pytest.fixture
    def base(self, tiny_base: Any) -> Any:
        """The record of the base that is served. Override it where `tiny` cannot be."""
        return tiny_base

    def commit(self, base: Any, folder: Path, seed: int) -> Any:
        """Commit the next version of `sql`, which answers in its own way."""
        return commit_tiny_lora(base, folder / f"sql-{seed}", "sql", 4, seed=seed)

    def test_it_answers_the_api(self, adz: Adz, base: Any, home: Path, tmp_path: Path) -> None:
        """The base and an adapter answer, each in its own way and always in the same. Refusals
        are 404 for an unknown model and 400 for none, as OpenAI's clients read them. Where the
        descriptor says `live`, a version committed after the start answers the next request, an
        alias moves, and an older version still answers as before. SIGTERM ends it with 0."""
        self.commit(base, tmp_path, 1)
        # One server for all: to start one may take a minute.
        with self.serving(base, home) as server:
            _check_answers(server, base.name)
            _check_refusals(server)
            if self.component.live:
                first = server.text("sql")
                self.commit(base, tmp_path, 2)
                _check_swaps(server, adz, first)
            code, err = server.stop()
        assert code == 0, f"SIGTERM ends it with exit code {code}: {err}"
        assert "Traceback" not in err, err

    def test_a_port_in_use_is_one_line(self, adz: Adz, base: Any) -> None:
        """It ends at once, with a reason."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            line = check_refusal(adz(*self.command(base, port)))
        assert port in line, f"the error does not name the port: {line!r}"

    def command(self, base: Any, port: str) -> list[str]:
        """The arguments of `adz`."""
        return ["serve", base.name, "--engine", self.name, "--port", port, *self.arguments]

    @contextmanager
    def serving(self, base: Any, home: Path) -> Iterator[Server]:
        """`adz serve` with this engine, ready."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        process = subprocess.Popen(
            [sys.executable, "-m", "adapterhub.cli", *self.command(base, port), "--json"],
            env={**os.environ, "ADZ_HOME": str(home)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        late = Timer(self.seconds, process.kill)
        late.start()
        try:
            url = _url_of(process)
            late.cancel()
            yield Server(url, process)
        finally:
            late.cancel()
            process.kill()
            process.wait()


def _url_of(process: subprocess.Popen[str]) -> str:
    """What `adz serve --json` prints when it is ready."""
    text = ""
    for line in process.stdout or ():
        text += line
        if line == "}\n":
            return str(json.loads(text)["url"])
    raise AssertionError(f"it never was ready: {process.communicate()[1]}")


def _check_answers(server: Server, base: str) -> None:
    assert {base, "sql"} <= set(server.models()), f"listed are {server.models()}"
    plain, adapted = server.text(base), server.text("sql")
    assert plain != adapted, "the adapter answers as the base does"
    assert server.text("sql") == adapted, "a greedy answer differs from the last"
    _check_usage(server.complete("sql").json())


def _check_refusals(server: Server) -> None:
    for model, status in (("nobody", 404), (None, 400), ("Not A Name!", 400)):
        answer = server.complete(model)
        assert answer.status_code == status, f"{model!r}: {answer.status_code}"
        message = answer.json()["error"]["message"]
        assert message, f"{model!r}: an error without a message"
        assert "Traceback" not in message, f"{model!r}: {message!r}"
    assert server.text("sql"), "after refusals it answers no more"


def _check_swaps(server: Server, adz: Adz, first: str) -> None:
    second = server.text("sql")
    assert second != first, "a new version does not answer under its name"
    assert server.text("sql@1") == first, "an older version answers otherwise now"
    for number, text in ((1, first), (2, second)):
        assert adz("tag", f"sql@{number}", "prod").code == 0
        assert server.text("sql@prod") == text, f"the alias does not mean sql@{number}"


def _check_usage(answer: dict[str, Any]) -> None:
    usage = answer.get("usage") or {}
    counts = {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert counts <= usage.keys(), f"usage lacks {', '.join(sorted(counts - usage.keys()))}"
    assert answer["choices"][0].get("finish_reason") in ("stop", "length"), "no finish_reason"
