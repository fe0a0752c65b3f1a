"""Remotes in a directory and in memory: what is visible when, also to many at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from published import MANIFEST, published

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.protocols import Remote, RemoteFile
from adapterhub_remotes.files import FilesRemote


def test_what_was_written_is_read_from_any_offset(
    remote: Remote, url: str, make_file: Callable[[bytes], tuple[RemoteFile, Path]]
) -> None:
    data = os.urandom(5 * 2**20 + 3)
    file, path = make_file(data)
    sent: list[int] = []
    assert not remote.contains("sql", file)
    remote.write("sql", file, path, sent.append)
    assert remote.contains("sql", file)
    assert sum(sent) == len(data)
    # Another process sees the same.
    other, version = FilesRemote(url), published()
    for offset in (0, 1, 2**20, 4 * 2**20 + 1, len(data) - 1, len(data)):
        chunks = list(other.read("sql", version, file, offset))
        assert b"".join(chunks) == data[offset:]
        assert max(map(len, chunks), default=0) <= 4 * 2**20


def test_a_version_is_visible_when_it_is_published(remote: Remote, url: str) -> None:
    assert (remote.names(), remote.tags("sql"), remote.find("sql", "7")) == ([], [], None)
    remote.publish("sql", published(signature=b"sig"), ["prod", "7"], "# card")
    remote.publish("team/sql", published(b'{"name":"team/sql"}'), ["1"], "# card")
    other = FilesRemote(url)
    assert other.names() == ["sql", "team/sql"]
    assert other.tags("sql") == ["7", "prod"]
    assert other.tags("team/sql") == ["1"]
    # The name `team` is not there only because `team/sql` is.
    assert (other.tags("team"), other.find("team", "1")) == ([], None)
    for tag in ("7", "prod"):
        found = other.find("sql", tag)
        assert found is not None
        assert (found.manifest, found.signature) == (MANIFEST, b"sig")
    found = other.find("team/sql", "1")
    assert found is not None
    assert (found.manifest, found.signature) == (b'{"name":"team/sql"}', None)


def test_an_alias_moves_and_a_number_does_not(remote: Remote) -> None:
    remote.publish("sql", published(), ["7", "prod"], "")
    remote.publish("sql", published(b"other"), ["8", "prod"], "")
    found = remote.find("sql", "prod")
    assert found is not None
    assert found.manifest == b"other"
    with pytest.raises(AdzError, match="sql@7 is another version in ") as caught:
        remote.publish("sql", published(b"other"), ["7", "staging"], "")
    assert caught.value.exit_code == 3
    assert remote.tags("sql") == ["7", "8", "prod"]
    found = remote.find("sql", "7")
    assert found is not None
    assert found.manifest == MANIFEST


def test_a_signature_can_be_added_and_is_not_lost(remote: Remote) -> None:
    for signature, expected in [(None, None), (b"s", b"s"), (None, b"s"), (b"t", b"t")]:
        remote.publish("sql", published(signature=signature), ["7"], "")
        found = remote.find("sql", "7")
        assert found is not None
        assert found.signature == expected


def test_of_eight_writers_of_a_number_one_wins(tmp_path: Path) -> None:
    url = (tmp_path / "share").as_uri()
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def publish(index: int) -> None:
        mine = FilesRemote(url)
        start.wait()
        try:
            mine.publish("sql", published(b"%d" % index), ["7"], "")
            outcomes.append(str(index))
        except AdzError:
            outcomes.append("refused")

    threads = [threading.Thread(target=publish, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = FilesRemote(url).find("sql", "7")
    assert found is not None
    assert outcomes.count("refused") == 7
    assert found.manifest.decode() in outcomes


def test_a_file_system_that_cannot_write_only_new_files(
    remote: Remote, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("file"):

        def refuse(self: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    else:
        plain = MemoryFileSystem.pipe_file
        monkeypatch.setattr(
            MemoryFileSystem, "pipe_file", lambda self, path, value: plain(self, path, value)
        )
    remote.publish("sql", published(), ["7"], "")
    with pytest.raises(AdzError, match="sql@7 is another version"):
        remote.publish("sql", published(b"other"), ["7"], "")
    found = remote.find("sql", "7")
    assert found is not None
    assert found.manifest == MANIFEST


@pytest.mark.parametrize(
    ("reason", "is_taken"),
    [
        ("A header you provided implies functionality that is not implemented", True),
        ("NotImplemented: If-None-Match", True),
        ("Access Denied", False),
    ],
)
def test_a_server_that_cannot_write_only_new_files(
    home: Path, monkeypatch: pytest.MonkeyPatch, reason: str, is_taken: bool
) -> None:
    plain = MemoryFileSystem.pipe_file

    def pipe_file(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(5, reason)
        plain(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    remote = open_remote("memory://one-by-one")
    if is_taken:
        remote.publish("sql", published(), ["7"], "")
        with pytest.raises(AdzError, match="sql@7 is another version"):
            remote.publish("sql", published(b"other"), ["7"], "")
    else:
        with pytest.raises(AdzError, match=reason):
            remote.publish("sql", published(), ["7"], "")
    MemoryFileSystem.store.clear()
