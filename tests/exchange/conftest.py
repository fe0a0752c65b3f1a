"""Two registries, adapters without torch, and a remote in memory that can be made to lie."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.push import push
from adapterhub.manifest import FileRecord, Version, sha256_of
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteFile, RemoteVersion

# The module beside this file.
sys.path.insert(0, str(Path(__file__).parent))


@dataclass
class MemoryRemote:
    """A `protocols.Remote`. `answer` replaces what `read` gives: file, offset, right bytes."""

    url: str = "memory-of-test://"
    blobs: dict[str, bytes] = field(default_factory=dict)
    published: dict[tuple[str, str], RemoteVersion] = field(default_factory=dict)
    cards: dict[str, str] = field(default_factory=dict)
    reads: list[tuple[str, int]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    answer: Callable[[RemoteFile, int, bytes], Iterator[bytes]] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> list[str]:
        return sorted({name for name, _ in self.published})

    def tags(self, name: str) -> list[str]:
        return [tag for found, tag in self.published if found == name]

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        return self.published.get((name, tag))

    def contains(self, name: str, file: RemoteFile) -> bool:
        return file.record.sha256 in self.blobs

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        with self.lock:
            self.reads.append((file.name, offset))
        data = self.blobs[file.record.sha256][offset:]
        if self.answer is not None:
            yield from self.answer(file, offset, data)
            return
        for at in range(0, len(data), 65536):
            yield data[at : at + 65536]

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        data = source.read_bytes()
        sent(len(data))
        with self.lock:
            self.writes.append(file.name)
            self.blobs[sha256_of(data)] = data

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        self.published |= {(name, tag): version for tag in tags}
        self.cards[name] = card


@pytest.fixture
def remote() -> MemoryRemote:
    return MemoryRemote()


@pytest.fixture
def sender(open_home: Callable[[str], Registry]) -> Registry:
    """The registry of whoever pushes; it is the ADZ_HOME until another one is opened."""
    return open_home("sender")


@pytest.fixture
def quick() -> Bounds:
    """Bounds that do not make a test wait."""
    return Bounds(pause=0.001, patience=0.2)


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture
def make_file() -> Callable[[bytes], RemoteFile]:
    """The description of a file with these bytes."""

    def make(data: bytes, name: str = "adapter_model.safetensors") -> RemoteFile:
        return RemoteFile(name, FileRecord(sha256=sha256_of(data), size=len(data)))

    return make


@pytest.fixture
def receiver(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Callable[..., Version],
    remote: Any,
) -> Registry:
    """An empty registry; `remote` holds sql@1 with weights of 3.2 MB."""
    commit_small(sender, width=200_000)
    list(push(sender, remote, ["sql"], Silent()))
    return open_home("receiver")
