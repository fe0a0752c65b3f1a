"""Ctrl-C and kill -9 in the middle of a transfer: nothing is visible, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_INTERRUPTED
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry

QUIET = Silent()


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "adapterhub.cli", *arguments],
        env={**os.environ, "ADZ_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_pull_that_is_stopped_goes_on(
    name: str,
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    make_reply: Any,
    place: str,
    tmp_path: Path,
) -> None:
    version = commit_small(sender, width=200_000)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    digest = version.manifest.files["adapter_model.safetensors"].sha256

    def hanging(asked: Any, reply: Any) -> Any:
        def body() -> Iterator[bytes]:
            yield reply.body[:2_000_000]
            time.sleep(25)

        return make_reply(200, reply.headers, body()) if digest in asked.path else reply

    relay.change = hanging
    home = tmp_path / "receiver"
    process = start(home, "pull", "sql", "--from", f"oci://127.0.0.1:{relay.port}/{place}")
    part = home / "partial" / digest.replace(":", "-")
    wait_for(lambda: part.exists() and part.stat().st_size > 1_500_000, process)
    begin = time.monotonic()
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=20)
    # The server is silent, and nobody waits for it.
    assert time.monotonic() - begin < 10
    assert out == ""
    if name == "SIGINT":
        assert process.returncode == EXIT_INTERRUPTED
        assert err.splitlines()[-1] == "adz: interrupted"
        assert list((home / "staging").iterdir()) == []
    relay.change = lambda asked, reply: reply
    relay.asked.clear()
    receiver = open_home("receiver")
    assert receiver.names() == []
    (result,) = pull(receiver, open_remote(relay.port), ["sql"], QUIET)
    assert (result.action, result.digest) == ("pulled", version.digest)
    (asked,) = [asked for asked in relay.asked if digest in asked.path]
    assert int(asked.headers["range"].removeprefix("bytes=").rstrip("-")) > 1_500_000


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_push_that_is_stopped_publishes_nothing(
    name: str,
    sender: Registry,
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    make_reply: Any,
    place: str,
    tmp_path: Path,
) -> None:
    commit_small(sender, width=200_000)

    def hanging(asked: Any) -> Any:
        if asked.method == "PATCH":
            time.sleep(25)
        return None

    relay.instead = hanging
    url = f"oci://127.0.0.1:{relay.port}/{place}"
    process = start(tmp_path / "sender", "push", "sql", "--to", url)
    wait_for(lambda: any(asked.method == "PATCH" for asked in relay.asked), process)
    begin = time.monotonic()
    process.send_signal(signal.Signals[name])
    process.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    relay.instead = lambda asked: None
    remote = open_remote(relay.port)
    assert remote.find("sql", "1") is None
    if name == "SIGINT":
        assert process.returncode == EXIT_INTERRUPTED
        assert sender.leases() == []
    (result,) = push(sender, remote, ["sql"], QUIET)
    assert result.action == "pushed"
