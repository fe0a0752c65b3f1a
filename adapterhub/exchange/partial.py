"""Files that are on their way here: kept when a download breaks off, so that it can go on.

Each lies in `$ADZ_HOME/partial` under its digest, and whoever writes it holds a lock on it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adapterhub.home import adz_home

KEEP_SECONDS = 7 * 86400.0

_POLL_SECONDS = 0.2


def partial_folder() -> Path:
    """Where downloads that broke off wait; 'adz gc' deletes the old ones."""
    return adz_home() / "partial"


def partial_path(digest: str) -> Path:
    """Where the bytes of `digest` are collected."""
    return partial_folder() / digest.replace(":", "-")


@contextmanager
def partial_file(digest: str, waiting: Callable[[], None]) -> Iterator[BinaryIO]:
    """The file for the bytes of `digest`, open for reading and writing, for this process alone.

    It stays when the block ends, unless it was moved or deleted there. `waiting` is called once
    where another process holds it, and the block begins when that lets go.
    """
    path = partial_path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _open_locked(path, waiting)
    try:
        yield file
    finally:
        file.close()


def sweep(*, keep_seconds: float = KEEP_SECONDS, dry_run: bool = False) -> int:
    """Delete what nobody holds and nobody wrote to for so long; return its size in bytes."""
    cutoff = time.time() - keep_seconds
    size = 0
    for path in partial_folder().glob("*"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(file.fileno())
                if status.st_mtime < cutoff:
                    size += status.st_size
                    if not dry_run:
                        path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue
    return size


def _open_locked(path: Path, waiting: Callable[[], None]) -> BinaryIO:
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before may have deleted it after we opened it.
            if _is_at(descriptor, path):
                return os.fdopen(descriptor, "r+b")
        except BlockingIOError:
            if not told:
                waiting()
                told = True
            time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
