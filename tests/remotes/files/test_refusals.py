"""Remotes in a directory and in memory: damages, names, addresses and errors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from published import MANIFEST, published

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import sha256_of
from adapterhub.protocols import Remote, RemoteFile, TransferInterruptedError
from adapterhub_remotes import local_files


def test_a_source_that_changed_is_not_stored(
    remote: Remote, make_file: Callable[[bytes], tuple[RemoteFile, Path]]
) -> None:
    file, path = make_file(b"weights")
    path.write_bytes(b"weighty")
    with pytest.raises(AdzError, match="changed while it was pushed"):
        remote.write("sql", file, path, lambda count: None)
    assert not remote.contains("sql", file)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"manifest": null, "signature": null}',
        b'{"manifest": "sha256:../../x", "signature": null}',
        json.dumps({"manifest": sha256_of(b"gone"), "signature": None}).encode(),
    ],
)
def test_damaged_tags_are_refused(tmp_path: Path, damage: bytes) -> None:
    remote = open_remote(str(tmp_path / "share"))
    remote.publish("sql", published(), ["7"], "")
    (tmp_path / "share/names/sql/_tags/7").write_bytes(damage)
    with pytest.raises(AdzError, match="is missing or damaged") as caught:
        remote.find("sql", "7")
    assert caught.value.exit_code == 3


def test_a_flipped_manifest_is_refused(tmp_path: Path) -> None:
    remote = open_remote(str(tmp_path / "share"))
    remote.publish("sql", published(), ["7"], "")
    blob = tmp_path / "share/blobs/sha256" / hashlib.sha256(MANIFEST).hexdigest()
    blob.write_bytes(MANIFEST.replace(b"sql", b"sqm"))
    with pytest.raises(AdzError, match="is missing or damaged"):
        remote.find("sql", "7")
    # Pushing again heals it.
    remote.publish("sql", published(), ["7"], "")
    assert remote.find("sql", "7") is not None


@pytest.mark.parametrize("name", ["../x", "a/b/c", "/etc", "A", ""])
def test_no_name_leads_out(remote: Remote, name: str) -> None:
    for call in (
        lambda: remote.tags(name),
        lambda: remote.find(name, "1"),
        lambda: remote.publish(name, published(), ["1"], ""),
    ):
        with pytest.raises(AdzError, match="is not a valid name"):
            call()
    with pytest.raises(AdzError, match="is not a valid alias"):
        remote.find("sql", "../../x")


def test_what_others_put_there_is_no_adapter(tmp_path: Path) -> None:
    share = tmp_path / "share"
    for path in ("names/sql/_tags/.hidden", "names/Upper/_tags/1", "names/a/notes.txt", "x"):
        (share / path).parent.mkdir(parents=True, exist_ok=True)
        (share / path).write_text("x")
    remote = open_remote(str(share))
    assert (remote.names(), remote.tags("sql")) == ([], [])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file://server/share", "names another machine"),
        ("s3://key:hidden@bucket/path", "s3://bucket/path was given with credentials"),
        ("ftp://server/share", "unknown kind of remote 'ftp://'"),
    ],
)
def test_urls_that_are_refused(home: Path, url: str, message: str) -> None:
    with pytest.raises(AdzError) as caught:
        open_remote(url)
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_library_says_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(AdzError) as caught:
        open_remote("s3://bucket/path")
    assert caught.value.hint == "pip install 'adapterhub[s3]'"


def test_a_directory_without_rights_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "share").write_text("a file")
    with pytest.raises(AdzError, match=rf"{tmp_path}/share"):
        open_remote(str(tmp_path / "share")).publish("sql", published(), ["1"], "")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "share")

    monkeypatch.setattr(local_files.os, "fsync", full)
    with pytest.raises(AdzError, match="No space left on device"):
        open_remote(str(tmp_path / "other")).publish("sql", published(), ["1"], "")


def test_errors_of_a_backend_are_one_line_without_secrets(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("GET https://user:pass@host/x?X-Amz-Signature=abc\nfailed")

    remote = open_remote("memory://bucket")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(AdzError) as caught:
        remote.find("sql", "7")
    message = str(caught.value)
    assert message.startswith("memory://bucket cannot be read: GET https")
    assert "\n" not in message
    assert "pass" not in message
    assert "abc" not in message


def test_a_read_that_breaks_off_can_be_taken_up(
    home: Path,
    make_file: Callable[[bytes], tuple[RemoteFile, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = open_remote("memory://bucket")
    data = os.urandom(9 * 2**20)
    file, path = make_file(data)
    remote.write("sql", file, path, lambda count: None)
    read, calls = MemoryFileSystem.cat_file, []

    def break_off(self: MemoryFileSystem, path: str, **arguments: int) -> bytes:
        calls.append(path)
        if len(calls) == 2:
            raise ConnectionResetError("reset by peer")
        found: bytes = read(self, path, **arguments)
        return found

    monkeypatch.setattr(MemoryFileSystem, "cat_file", break_off)
    came = bytearray()

    def take_up() -> None:
        for chunk in remote.read("sql", published(), file, len(came)):
            came.extend(chunk)

    with pytest.raises(TransferInterruptedError, match="reset by peer"):
        take_up()
    assert 0 < len(came) < len(data)
    take_up()
    assert bytes(came) == data
    MemoryFileSystem.store.clear()
