"""Every change that the registry makes to the file system, one effect a function.

Nothing else in this package writes files (SQLite writes its own). Callers decide the order;
what must survive a power loss is `write` or `copy`, `sync`, `rename`, `sync` of the directory.
An OSError names the path, so that a full disk is one clear line.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adapterhub.errors import AdzError
from adapterhub.manifest import FileRecord

_CHUNK = 1 << 18
_WINDOW = 1 << 20
_START_WRITING = 2
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
        _begin_writing(file, 0, len(data))


def copy(source: Path, target: Path) -> FileRecord:
    """Copy a regular file to `target`, which must not exist; return what was stored there.

    The bytes are shared with `source` where the file system can (a reflink), never linked:
    an editor that writes through one must not reach the other.
    """
    with _naming(target), target.open("x+b") as writer, _open_regular(source) as reader:
        if _reflink(reader, writer):
            digest, size = hashlib.file_digest(writer, "sha256"), os.fstat(writer.fileno()).st_size
        else:
            digest, size = _copy_bytes(reader, writer)
    return FileRecord(sha256="sha256:" + digest.hexdigest(), size=size)


def append(path: Path, data: bytes) -> None:
    """Add `data` at the end of `path`, which may not exist yet. A failure may leave a part."""
    with _naming(path), path.open("ab") as file:
        file.write(data)


def truncate(path: Path, size: int) -> None:
    """Take back what was appended to a file that had `size` bytes."""
    with _naming(path):
        os.truncate(path, size)


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
def _open_regular(path: Path) -> Iterator[io.BufferedReader]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise AdzError(f"{path} is a symbolic link", "give a copy of the file itself") from None
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _copy_bytes(source: io.BufferedReader, target: BinaryIO) -> tuple[hashlib._Hash, int]:
    """Copy and hash, and let the disk begin to write meanwhile."""
    digest, size, begun = hashlib.sha256(), 0, 0
    # Memory that is new for each chunk costs more than the copying.
    chunk = memoryview(bytearray(_CHUNK))
    while count := source.readinto(chunk):
        target.write(chunk[:count])
        digest.update(chunk[:count])
        size += count
        if size - begun >= _WINDOW:
            _begin_writing(target, begun, size - begun)
            begun = size
    _begin_writing(target, begun, size - begun)
    return digest, size


def _begin_writing(file: BinaryIO, start: int, size: int) -> None:
    """Ask for a range to be written to the disk without waiting; `sync` waits for less then.

    It promises nothing, so that a system that cannot do it changes nothing.
    """
    file.flush()
    _sync_file_range()(file.fileno(), start, size, _START_WRITING)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], object]:
    import ctypes

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is None:
        return lambda descriptor, start, size, flags: None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call: Callable[[int, int, int, int], object] = function
    return call


def _reflink(source: BinaryIO, target: BinaryIO) -> bool:
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True
