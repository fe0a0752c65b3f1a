"""Uploads and downloads of single files: taken up after a break, and not sent twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry

QUIET = Silent()


def test_a_blob_is_taken_from_another_repository(
    sender: Registry, commit_small: Any, relay: Any, open_remote: Any
) -> None:
    commit_small(sender, "a", width=100_000)
    commit_small(sender, "b", width=100_000)
    list(push(sender, open_remote(relay.port), ["a", "b"], QUIET))
    mounts = [asked.path for asked in relay.asked if "mount=" in asked.path]
    # Weights, configuration, artifact and, as both cards say something else, nothing more.
    assert len(mounts) == 3
    sent = [len(asked.body) for asked in relay.asked if asked.method in ("PATCH", "PUT")]
    assert len([size for size in sent if size > 1_000_000]) == 1


def test_an_upload_goes_on_after_a_break(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    make_reply: Any,
) -> None:
    """The relay hands on a half, says that the server failed, and answers for the upload."""
    state: dict[str, Any] = {}

    def instead(asked: Any) -> Any:
        if asked.method == "PATCH" and "half" not in state:
            half = asked.body[: len(asked.body) // 2]
            asked.headers["content-length"] = str(len(half))
            asked.headers.pop("content-range")
            asked.body = half
            state["half"] = len(half)
            state["reply"] = relay.forward(asked)
            return make_reply(503, {"Content-Length": "0"})
        if asked.method == "GET" and "/uploads/" in asked.path:
            headers = {k: v for k, v in state["reply"].headers.items() if k != "Content-Length"}
            return make_reply(204, headers)
        return None

    relay.instead = instead
    version = commit_small(sender, width=200_000)
    sent: list[float] = []
    progress = Counting(sent)
    (result,) = push(sender, open_remote(relay.port), ["sql"], progress)
    assert result.action == "pushed"
    patches = [asked for asked in relay.asked if asked.method == "PATCH"]
    size = version.manifest.files["adapter_model.safetensors"].size
    assert [len(asked.body) for asked in patches] == [state["half"], size - state["half"]]
    assert patches[1].headers["content-range"] == f"{state['half']}-{size - 1}"
    assert round(sum(sent) * 1e6) == result.sent
    receiver = open_home("receiver")
    relay.instead = lambda asked: None
    (pulled,) = pull(receiver, open_remote(relay.port), ["sql"], QUIET)
    assert pulled.digest == version.digest


class Counting(Silent):
    """Progress that adds up what it is told."""

    def __init__(self, sent: list[float]) -> None:
        self._sent = sent

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._sent.append(amount)


def test_an_upload_that_cannot_be_taken_up_begins_again(
    sender: Registry, commit_small: Any, relay: Any, open_remote: Any, make_reply: Any
) -> None:
    failures = iter([500, 502])

    def instead(asked: Any) -> Any:
        if asked.method == "PATCH" and (status := next(failures, None)):
            return make_reply(status, {"Content-Length": "0"})
        return None

    relay.instead = instead
    commit_small(sender, width=200_000)
    (result,) = push(sender, open_remote(relay.port), ["sql"], QUIET)
    assert result.action == "pushed"


def test_a_download_goes_on_after_a_break(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    quick: Any,
) -> None:
    version = commit_small(sender, width=200_000)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    digest = version.manifest.files["adapter_model.safetensors"].sha256
    cut = iter([True])

    def change(asked: Any, reply: Any) -> Any:
        if digest in asked.path and next(cut, False):
            reply.body = reply.body[:2_000_000]
        return reply

    relay.change = change
    relay.asked.clear()
    receiver = open_home("receiver")
    (result,) = pull(receiver, open_remote(relay.port), ["sql"], QUIET, bounds=quick)
    assert result.action == "pulled"
    ranges = [asked.headers.get("range") for asked in relay.asked if digest in asked.path]
    assert ranges == [None, "bytes=2000000-"]


def test_a_server_without_ranges_is_read_from_the_start(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    quick: Any,
) -> None:
    version = commit_small(sender, width=200_000)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    digest = version.manifest.files["adapter_model.safetensors"].sha256
    cut = iter([True])

    def without_range(asked: Any) -> Any:
        asked.headers.pop("range", None)

    def change(asked: Any, reply: Any) -> Any:
        if digest in asked.path and next(cut, False):
            reply.body = reply.body[:2_000_000]
        return reply

    relay.instead, relay.change = without_range, change
    (result,) = pull(open_home("r"), open_remote(relay.port), ["sql"], QUIET, bounds=quick)
    assert (result.action, result.digest) == ("pulled", version.digest)


def test_a_registry_may_take_its_time_to_store(
    sender: Registry, commit_small: Any, relay: Any, open_remote: Any
) -> None:
    def change(asked: Any, reply: Any) -> Any:
        if asked.method == "PUT":
            time.sleep(0.6)
        return reply

    relay.change = change
    commit_small(sender, width=100_000)
    (result,) = push(sender, open_remote(relay.port, 0.3), ["sql"], QUIET)
    assert result.action == "pushed"
    assert len([asked for asked in relay.asked if asked.method == "PATCH"]) == 1


@pytest.mark.parametrize("status", [403, 405])
def test_where_a_blob_cannot_be_asked_for_it_is_sent(
    sender: Registry,
    commit_small: Any,
    relay: Any,
    start_relay: Any,
    open_remote: Any,
    make_reply: Any,
    status: int,
) -> None:
    storage = start_relay(None)
    storage.instead = lambda asked: make_reply(status, {"Content-Length": "0"})

    def instead(asked: Any) -> Any:
        if asked.method == "HEAD":
            where = f"http://127.0.0.1:{storage.port}{asked.path}"
            return make_reply(307, {"Content-Length": "0", "Location": where})
        return None

    relay.instead = instead
    commit_small(sender)
    (result,) = push(sender, open_remote(relay.port), ["sql"], QUIET)
    assert (result.action, result.sent) == ("pushed", result.size)
