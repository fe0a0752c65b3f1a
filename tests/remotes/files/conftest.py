"""A remote in a directory and one in memory, and files for them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import FileRecord, sha256_of
from adapterhub.protocols import Remote, RemoteFile

# The module beside this file.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield (tmp_path / "a share").as_uri()
    else:
        yield "memory://bucket/path"
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def remote(url: str) -> Remote:
    return open_remote(url)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[bytes], tuple[RemoteFile, Path]]:
    def make(data: bytes) -> tuple[RemoteFile, Path]:
        path = tmp_path / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        record = FileRecord(sha256=sha256_of(data), size=len(data))
        return RemoteFile("adapter_model.safetensors", record), path

    return make
