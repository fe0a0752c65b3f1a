"""Files on their way in: invisible before all are there, read once, kept while they may pass."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.manifest import Version
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteFile

OpenHome = Callable[[str], Registry]
Commit = Callable[..., Version]

QUIET = Silent()


def test_a_version_is_invisible_before_it_is_whole(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any, quick: Bounds
) -> None:
    commit_small(sender, width=200_000)
    list(push(sender, remote, ["sql"], QUIET))
    receiver = open_home("receiver")
    seen: list[list[str]] = []

    def watch(file: RemoteFile, offset: int, data: bytes) -> Any:
        seen.append(receiver.names())
        yield data
        seen.append(receiver.names())

    remote.answer = watch
    list(pull(receiver, remote, ["sql"], QUIET, bounds=quick))
    assert seen
    assert not any(seen)
    assert receiver.names() == ["sql"]
    home = Path(os.environ["ADZ_HOME"])
    assert list((home / "staging").iterdir()) == []
    assert list((home / "partial").iterdir()) == []


def test_two_pulls_of_one_file_read_it_once(
    sender: Registry, open_home: OpenHome, commit_small: Commit, remote: Any
) -> None:
    commit_small(sender, "a", width=200_000)
    commit_small(sender, "b", width=200_000)
    list(push(sender, remote, ["a", "b"], QUIET))
    receiver = open_home("receiver")
    begun = threading.Event()
    notes: list[str] = []

    def slow(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        if file.name == "adapter_model.safetensors":
            begun.set()
            time.sleep(0.3)
        yield data

    class Noting(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    remote.answer = slow
    first = threading.Thread(target=lambda: list(pull(receiver, remote, ["a"], QUIET)))
    first.start()
    assert begun.wait(20)
    remote.reads.clear()
    list(pull(receiver, remote, ["b"], Noting()))
    first.join()
    assert receiver.names() == ["a", "b"]
    assert notes == ["waiting for another process that pulls the same file"]
    assert ("adapter_model.safetensors", 0) not in remote.reads


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (AdzError("the gates refuse it", exit_code=EXIT_VERIFICATION), 0),
        (AdzError("the registry is busy"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_a_download_outlives_what_may_pass(
    sender: Registry,
    open_home: OpenHome,
    commit_small: Commit,
    remote: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kept: int,
) -> None:
    commit_small(sender, width=200_000)
    list(push(sender, remote, ["sql"], QUIET))
    receiver = open_home("receiver")

    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(receiver, "receive", fail)
        with pytest.raises(type(error)):
            list(pull(receiver, remote, ["sql"], QUIET))
    home = Path(os.environ["ADZ_HOME"])
    assert len(list((home / "partial").iterdir())) == kept
    assert list((home / "staging").iterdir()) == []
    remote.reads.clear()
    list(pull(receiver, remote, ["sql"], QUIET))
    assert (("adapter_model.safetensors", 0) in remote.reads) == (kept == 0)
    assert list((home / "partial").iterdir()) == []
