"""The files of a remote in a directory of this machine, or of one that is mounted."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from adapterhub.errors import AdzError, usage_error

_CHUNK = 2**20
_ABANDONED_SECONDS = 86_400.0
# A file system without hard links, such as a stick's, says one of these.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class LocalFiles:
    """A `file_store.FileStore`. What is written lies in `unfinished/` until it is whole and
    synced."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise usage_error(f"{url} names another machine", "write file:///path")
        self.root = Path(unquote(parts.path))

    def size(self, path: str) -> int | None:
        """See `file_store.FileStore`."""
        with _clear_errors():
            try:
                return (self.root / path).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def get(self, path: str, limit: int) -> bytes | None:
        """See `file_store.FileStore`."""
        with _clear_errors():
            try:
                with (self.root / path).open("rb") as file:
                    return file.read(limit)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """See `file_store.FileStore`."""
        # What the reader raises between two chunks is not ours to explain.
        with _clear_errors():
            file = (self.root / path).open("rb")
        with file:
            file.seek(offset)
            while chunk := _read(file):
                yield chunk

    def put(self, path: str, data: bytes, *, new: bool = False) -> bool:
        """See `file_store.FileStore`."""
        return self._place(path, [data], new=new)

    def upload(self, path: str, source: Path, sent: Callable[[int], None]) -> None:
        """See `file_store.FileStore`."""

        def chunks() -> Iterator[bytes]:
            with source.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
                    sent(len(chunk))

        self._place(path, chunks())

    def below(self, folder: str) -> Iterator[str]:
        """See `file_store.FileStore`."""
        for directory, _, names in os.walk(self.root / folder):
            for name in names:
                yield Path(directory, name).relative_to(self.root).as_posix()

    def _place(self, path: str, chunks: Iterable[bytes], *, new: bool = False) -> bool:
        target = self.root / path
        with _clear_errors():
            unfinished = self.root / "unfinished"
            for folder in (target.parent, unfinished):
                _make_directory(folder)
            _sweep(unfinished)
            temporary = unfinished / uuid.uuid4().hex
            try:
                with temporary.open("xb") as file:
                    file.writelines(chunks)
                    file.flush()
                    os.fsync(file.fileno())
                placed = _move_new(temporary, target) if new else _move(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync(target.parent)
        return placed


def _read(file: BinaryIO) -> bytes:
    with _clear_errors():
        return file.read(_CHUNK)


def _move(source: Path, target: Path) -> bool:
    source.rename(target)
    return True


def _move_new(source: Path, target: Path) -> bool:
    # A rename would replace what another writer put there; a link never does.
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return not target.exists() and _move(source, target)
    return True


def _make_directory(path: Path) -> None:
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(unfinished: Path) -> None:
    """Delete what killed writers left. A day is longer than any upload takes."""
    cutoff = time.time() - _ABANDONED_SECONDS
    for path in unfinished.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < cutoff:
                path.unlink()


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AdzError(
            f"{error.strerror or error}: {error.filename}", "check the directory and its rights"
        ) from error
