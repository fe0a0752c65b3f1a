"""`adz serve --engine transformers` as a process: ready, port in use, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest


@pytest.fixture
def server(tiny_base: Any, commit_adapter: Any, home: Path) -> Iterator[subprocess.Popen[str]]:
    commit_adapter("sql")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ("serve", "tiny", "--engine", "transformers", "--port", str(port), "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "adapterhub.cli", *arguments],
        env={**os.environ, "ADZ_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


def url_of(process: subprocess.Popen[str]) -> str:
    """What the server prints when it is ready."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return str(json.loads(text)["url"])
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_lets_a_short_answer_end_and_stops_the_server(
    server: subprocess.Popen[str], kind: signal.Signals, code: int
) -> None:
    client = openai.OpenAI(base_url=url_of(server), api_key="none", max_retries=0)
    # Greedy: a sampled answer may end with its first token.
    stream = client.completions.create(
        model="sql", prompt="x", max_tokens=200, temperature=0, stream=True
    )
    pieces = iter(stream)
    next(pieces)
    begun = time.monotonic()
    server.send_signal(kind)
    ends = [piece.choices[0].finish_reason for piece in pieces]
    assert ends[-1] in ("length", "stop")
    _, err = server.communicate(timeout=30)
    assert (server.returncode, "Traceback" in err) == (code, False), err
    assert time.monotonic() - begun < 25


def test_a_port_in_use_is_one_line(server: subprocess.Popen[str], adz: Any) -> None:
    port = url_of(server).rpartition(":")[2].removesuffix("/v1")
    done = adz("serve", "tiny", "--engine", "transformers", "--port", port)
    assert (done.code, done.out) == (1, "")
    assert f"port {port} on 127.0.0.1 is in use" in done.err
    extra = adz("serve", "tiny", "--engine", "transformers", "--port", "1024", "--", "--flag")
    assert (extra.code, "has no flags of its own: --flag" in extra.err) == (2, True)
