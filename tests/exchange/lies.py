"""What a pull has to do where a remote does not tell the truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.pull import pull
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteFile

WEIGHTS = "adapter_model.safetensors"
Answer = Callable[[RemoteFile, int, bytes], Iterator[bytes]]


def only_weights(change: Answer) -> Answer:
    def answer(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        if file.name == WEIGHTS:
            yield from change(file, offset, data)
        else:
            yield data

    return answer


def home() -> Path:
    return Path(os.environ["ADZ_HOME"])


def refused(receiver: Registry, remote: Any, bounds: Bounds) -> AdzError:
    with pytest.raises(AdzError) as caught:
        list(pull(receiver, remote, ["sql@1"], Silent(), bounds=bounds))
    assert receiver.names() == []
    assert "\n" not in str(caught.value)
    blobs = home() / "registry" / "blobs" / "sha256"
    assert list(blobs.iterdir()) == []
    assert list((home() / "staging").glob("*")) == []
    return caught.value
