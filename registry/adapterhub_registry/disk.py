"""Every change that the registry makes to the file system, one effect a function.

Nothing else in this package writes files (SQLite writes its own). Callers decide the order;
what must survive a power loss is `write` or `copy`, `sync`, `rename`, `sync` of the directory.
An OSError names the path, so that a full disk is one clear line.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adapterhub.errors import AdzError
from adapterhub.manifest import FileRecord

_CHUNK = 1 << 20
_FICLONE = 0x40049409
_READ_ONLY = 0o444


def make_directory(path: Path) -> None:
    """Create `path` and its parents; it may exist."""
    with _naming(path):
        path.mkdir(parents=True, exist_ok=True)


def make_lasting_directory(path: Path) -> None:
    """Create `path` and its parents, each with its entry on the disk; it may exist."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    for folder in reversed(missing):
        make_directory(folder)
        sync(folder.parent)


def write(path: Path, data: bytes) -> None:
    """Create the file `path`, which must not exist, with `data` in it."""
    with _naming(path), path.open("xb") as file:
        file.write(data)


def copy(source: Path, target: Path) -> FileRecord:
    """Copy a regular file to `target`, which must not exist; return what was stored there.

    The bytes are shared with `source` where the file system can (a reflink), never linked:
    an editor that writes through one must not reach the other.
    """
    with _naming(target), target.open("x+b") as writer, _open_regular(source) as reader:
        if _reflink(reader, writer):
            digest, size = hashlib.file_digest(writer, "sha256"), os.fstat(writer.fileno()).st_size
        else:
            digest, size = hashlib.sha256(), 0
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    return FileRecord(sha256="sha256:" + digest.hexdigest(), size=size)


def append(path: Path, data: bytes) -> None:
    """Add `data` at the end of `path`, which may not exist yet. A failure may leave a part."""
    with _naming(path), path.open("ab") as file:
        file.write(data)


def protect(path: Path) -> None:
    """Make a file read-only."""
    with _naming(path):
        path.chmod(_READ_ONLY)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a directory's entries, to the disk."""
    with _naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Move within the file system; a file at `target` is replaced in one step."""
    with _naming(target):
        source.rename(target)


def remove(path: Path) -> None:
    """Delete a file or a whole directory."""
    with _naming(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def lease(path: Path) -> Iterator[bool]:
    """Hold a directory for the length of the block, or yield False when a process holds it or
    it is gone. A killed process holds nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been moved away between the two calls.
        held = path.exists()
    except BlockingIOError:
        held = False
    try:
        yield held
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a directory for the length of the block, waiting for who holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def _open_regular(path: Path) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise AdzError(f"{path} is a symbolic link", "give a copy of the file itself") from None
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _reflink(source: BinaryIO, target: BinaryIO) -> bool:
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True
