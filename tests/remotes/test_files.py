"""Remotes in a directory and in memory: what lies where, what is visible when, and the errors."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import FileRecord, sha256_of
from adapterhub.protocols import Remote, RemoteFile, RemoteVersion, TransferInterruptedError
from adapterhub_remotes import local_files
from adapterhub_remotes.files import FilesRemote

MANIFEST = b'{"name":"sql"}'


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


def published(manifest: bytes = MANIFEST, signature: bytes | None = None) -> RemoteVersion:
    return RemoteVersion(manifest, signature)


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


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    remote = open_remote(str(tmp_path / "share"))
    remote.publish("team/sql", published(signature=b"sig"), ["7", "prod"], "# card")
    root = tmp_path / "share"
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    blobs = {f"blobs/sha256/{hashlib.sha256(data).hexdigest()}" for data in (MANIFEST, b"sig")}
    tags = {f"names/team/sql/_tags/{tag}" for tag in ("7", "prod")}
    assert files == blobs | tags | {"names/team/sql/README.md"}
    assert (root / "names/team/sql/README.md").read_text() == "# card"
    assert json.loads((root / "names/team/sql/_tags/7").read_text()) == {
        "manifest": sha256_of(MANIFEST),
        "signature": sha256_of(b"sig"),
    }
    # Others of a group read it: the modes are those of the umask.
    umask = os.umask(0)
    os.umask(umask)
    modes = {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~umask}


def test_a_writer_that_dies_leaves_nothing_visible(
    tmp_path: Path, make_file: Callable[[bytes], tuple[RemoteFile, Path]]
) -> None:
    remote = open_remote(str(tmp_path / "share"))
    file, path = make_file(os.urandom(3 * 2**20))

    def die(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.write("sql", file, path, die)
    assert not remote.contains("sql", file)
    assert [p for p in (tmp_path / "share").rglob("*") if p.is_file()] == []
    # What a killed one left is deleted a day later, not before.
    left = tmp_path / "share" / "unfinished" / "left"
    left.write_bytes(b"half")
    remote.publish("sql", published(), ["1"], "")
    assert left.exists()
    os.utime(left, times=(0, time.time() - 90_000))
    remote.publish("sql", published(), ["1"], "")
    assert not left.exists()


def test_files_are_synced_before_they_are_named_and_folders_after(
    tmp_path: Path,
    make_file: Callable[[bytes], tuple[RemoteFile, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = open_remote(str(tmp_path / "share"))
    file, path = make_file(b"weights")
    remote.publish("sql", published(), ["1"], "")
    calls: list[str] = []
    sync, rename, link = os.fsync, Path.rename, Path.hardlink_to

    def fsync(descriptor: int) -> None:
        opened = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(f"sync {opened.parent.name if opened.is_file() else opened.name}")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    def linked(self: Path, target: Path) -> None:
        calls.append("link")
        link(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Path, "hardlink_to", linked)
    remote.write("sql", file, path, lambda count: None)
    assert calls == ["sync unfinished", "rename", "sync sha256"]
    calls.clear()
    remote.publish("sql", published(), ["2"], "")
    assert calls[:3] == ["sync unfinished", "rename", "sync sha256"]
    assert calls[3:6] == ["sync unfinished", "link", "sync _tags"]


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
