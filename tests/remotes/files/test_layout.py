"""Remotes in a directory: what lies where, and in which order it gets there."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from published import MANIFEST, published

from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import sha256_of
from adapterhub.protocols import RemoteFile


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
