"""A server in the background, with the embedded engine: started, listed, watched, stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapterhub.protocols import ServeSettings
from adapterhub.serve.lifecycle.state import running_servers, stated

from ...free_ports import free_ports

START = ("serve", "tiny", "--engine", "transformers", "--detach", "--json")
# Greedy, and more than one batch: it takes a while.
LONG = {"prompt": [str(number) for number in range(48)], "max_tokens": 200, "stream": True}


@pytest.fixture
def server(adz_process: Any, commit_adapter: Any, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What `adz serve --detach` printed; it answers already."""
    commit_adapter("sql")
    options = ("--port", str(free_ports(1)[0]), "--log-format", "json", "--drain-seconds", "90")
    started = adz_process(*START, *options)
    assert started.code == 0, started.err
    yield json.loads(started.out)
    for state in running_servers():
        os.kill(state.pid, signal.SIGKILL)


def ask(url: str, **body: Any) -> httpx2.Response:
    with httpx2.Client(timeout=120, trust_env=False) as client:
        question = {"model": "sql", "prompt": "x", "temperature": 0, "max_tokens": 5, **body}
        return client.post(f"{url}/completions", json=question)


def listed(adz: Any) -> list[dict[str, Any]]:
    done = adz("ps", "--json")
    assert done.code == 0, done.err
    servers: list[dict[str, Any]] = json.loads(done.out)
    return servers


def test_from_start_to_end(server: dict[str, Any], adz: Any, home: Path) -> None:
    url, port = server["url"], server["url"].split(":")[2].removesuffix("/v1")
    assert Path(server["log"]).is_file()
    assert ask(url).json()["model"] == "sql@1"
    (shown,) = listed(adz)
    assert (shown["pid"], shown["state"], shown["engine"]) == (
        server["pid"], "ready", "transformers"
    )  # fmt: skip
    assert (shown["requests"], shown["resident"]) == (1, ["sql@1"])
    table = adz("ps").out.splitlines()
    assert table[0].split()[:3] == ["URL", "BASE", "ENGINE"]
    assert table[1].split()[:4] == [url, "tiny", "transformers", str(server["pid"])]

    second = adz("serve", "tiny", "--engine", "transformers", "--port", port)
    assert (second.code, second.err.count("\n")) == (1, 1)
    assert f"port {port} on 127.0.0.1 is in use" in second.err

    line = (home / "serve" / f"{port}.requests.log").read_text().splitlines()[0]
    fields = json.loads(line)
    assert (fields["reference"], fields["version"], fields["status"]) == ("sql", "sql@1", 200)
    assert (fields["prompt_tokens"], fields["generated_tokens"]) == (1, 5)
    assert 0 < fields["first_token_seconds"] <= fields["seconds"]

    check_that_a_preset_holds_for_the_next_request(url, adz, home)

    with ThreadPoolExecutor() as pool:
        before = pool.submit(ask, url, **LONG)
        wait_for(lambda: top(adz, port)["in_flight"] == 1)
        stopping = pool.submit(adz, "stop", port, "--json")
        wait_for(lambda: httpx2.get(url.replace("/v1", "/ready")).status_code == 503)
        refused = ask(url)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert before.result().text.endswith("data: [DONE]\n\n")
        stopped = stopping.result()
    assert json.loads(stopped.out)["stopped"][0]["pid"] == server["pid"]
    assert not Path(f"/proc/{server['pid']}").exists() or running_servers() == []
    assert list((home / "serve").glob("*.json")) == []
    assert adz("ps").out == "no server runs\n"
    assert adz("stop").code == 2


def check_that_a_preset_holds_for_the_next_request(url: str, adz: Any, home: Path) -> None:
    def prompt_and_answer(model: str, *turns: str, **body: Any) -> tuple[int, int]:
        roles = ("system", "user")[-len(turns) :]
        messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)]
        with httpx2.Client(timeout=120, trust_env=False) as client:
            question = {"model": model, "messages": messages, **body}
            used = client.post(f"{url}/chat/completions", json=question).json()["usage"]
        return used["prompt_tokens"], used["completion_tokens"]

    said = {"max_tokens": 3, "temperature": 0}
    with_system = prompt_and_answer("sql", "Be short.", "Hello", **said)
    assert prompt_and_answer("sql", "Hello", **said) < with_system
    options = ("--system", "Be short.", "--max-tokens", "3", "--temperature", "0")
    assert adz("preset", "sql", *options).code == 0
    assert prompt_and_answer("sql", "Hello") == with_system
    assert prompt_and_answer("sql", "Mine.", "Hello", max_tokens=2)[1] == 2
    template = home / "template.jinja"
    template.write_text("{{ messages[-1].content }}")
    assert adz("preset", "sql", "--chat-template", template).code == 0
    assert prompt_and_answer("sql", "Hello")[0] == len("Hello")
    # The base has no preset, and no other template than its own.
    assert prompt_and_answer("tiny", "Hello", **said)[0] > len("Hello")


def top(adz: Any, port: str) -> dict[str, Any]:
    done = adz("top", port, "--once", "--json", "--interval", "0.1")
    assert done.code == 0, done.err
    versions = json.loads(done.out)["versions"]
    return next((v for v in versions if v["version"] == "sql@1"), {"in_flight": 0})


def wait_for(condition: Any) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to be so")


def test_a_stream_that_is_too_long_is_cut_by_stop_now(server: dict[str, Any], adz: Any) -> None:
    # Loaded before, since a load is not cut.
    assert ask(server["url"]).status_code == 200
    with ThreadPoolExecutor() as pool:
        cut = pool.submit(ask, server["url"], **LONG)
        time.sleep(0.3)
        begun = time.monotonic()
        assert adz("stop", "tiny", "--now").code == 0
        assert time.monotonic() - begun < 20
        with pytest.raises(httpx2.RemoteProtocolError):
            cut.result()


def test_one_that_was_killed_is_reported_once(adz: Any, home: Path) -> None:
    with stated(ServeSettings("tiny", port=8123), "transformers"):
        (file,) = (home / "serve").glob("*.json")
        values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "began": "another"}))
    done = adz("ps")
    assert done.out == "no server runs\n"
    assert done.err == (
        f"warning: the server of tiny on port 8123 (process {os.getpid()}) ended without a word; "
        f"its log is {home}/serve/8123.log\n"
    )
    assert adz("ps").err == ""


def test_why_it_did_not_start_is_one_line_with_its_exit_code(
    tiny_base: Any, adz_process: Any
) -> None:
    done = adz_process(*START, "--port", str(free_ports(1)[0]), "--", "--flag")
    assert (done.code, done.out) == (2, "")
    said = [line for line in done.err.splitlines() if line.startswith("adz: ")]
    assert len(said) == 1
    assert "the transformers engine has no flags of its own: --flag" in said[0]
    assert "Traceback" not in done.err
