"""The files of a remote on an SFTP server, as `adapterhub.exchange.file_store` lays them out.

A file is written as `unfinished/...` and renamed when it is whole. The plain rename of SFTP refuses
to replace (draft-ietf-secsh-filexfer-02, section 6.5), which makes a version's number final;
`posix-rename@openssh.com` replaces, which moves an alias.
"""

from __future__ import annotations

import io
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from posixpath import dirname
from typing import Any

import paramiko

from adapterhub import AdzError
from adapterhub.exchange.file_store import FileStoreRemote
from adapterhub.protocols import TransferInterruptedError
from adz_remote_sftp.connection import Connection

_CHUNK = 2**20
_UNFINISHED = "unfinished"
_ABANDONED_SECONDS = 86_400.0


def open_sftp(url: str) -> FileStoreRemote:
    """The remote at `url`. Nothing is sent before something is asked."""
    files = SftpFiles(Connection(url))
    return FileStoreRemote(files.url, files)


class SftpFiles:
    """A `file_store.FileStore`."""

    def __init__(self, connection: Connection) -> None:
        self.url = connection.url
        self._connection = connection
        self._folders: set[str] = set()

    def size(self, path: str) -> int | None:
        """See `FileStore`."""
        with self._session("read") as sftp:
            try:
                size: int | None = sftp.stat(self._full(path)).st_size
            except FileNotFoundError:
                return None
        return size

    def get(self, path: str, limit: int) -> bytes | None:
        """See `FileStore`."""
        with self._session("read") as sftp:
            try:
                with sftp.open(self._full(path), "rb") as file:
                    data: bytes = file.read(limit)
            except FileNotFoundError:
                return None
        return data

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """See `FileStore`."""
        size = self.size(path)
        if size is None:
            raise AdzError(f"{self.url} lacks {path}", "push the version again")
        with (
            self._session("read", TransferInterruptedError) as sftp,
            sftp.open(self._full(path), "rb") as file,
        ):
            for start in range(offset, size, _CHUNK):
                # Asks for all of a chunk at once: a round trip for each packet would be slow.
                yield from file.readv([(start, min(_CHUNK, size - start))])

    def put(self, path: str, data: bytes, *, new: bool = False) -> bool:
        """See `FileStore`."""
        with self._session("written") as sftp:
            if new and _exists(sftp, self._full(path)):
                return False
            return self._place(sftp, path, lambda to: sftp.putfo(io.BytesIO(data), to), new=new)

    def upload(self, path: str, source: Path, sent: Callable[[int], None]) -> None:
        """See `FileStore`."""
        told = 0

        def tell(done: int, _: int) -> None:
            nonlocal told
            sent(done - told)
            told = done

        with self._session("written") as sftp:
            self._place(sftp, path, lambda to: sftp.put(str(source), to, callback=tell))

    def below(self, folder: str) -> Iterator[str]:
        """See `FileStore`."""
        with self._session("listed") as sftp:
            found = list(_walk(sftp, self._full(folder)))
        for path in found:
            yield path.removeprefix(self._connection.root).lstrip("/")

    def _place(
        self,
        sftp: paramiko.SFTPClient,
        path: str,
        write: Callable[[str], Any],
        *,
        new: bool = False,
    ) -> bool:
        """Write to a name of its own, then rename; False where `new` and something is there."""
        target = self._full(path)
        for folder in (self._full(_UNFINISHED), dirname(target)):
            self._make_folder(sftp, folder)
        unfinished = self._full(f"{_UNFINISHED}/{uuid.uuid4().hex}")
        try:
            # Afterwards the size is asked for and compared.
            write(unfinished)
            if not new:
                sftp.posix_rename(unfinished, target)
                return True
            try:
                sftp.rename(unfinished, target)
            except OSError:
                if not _exists(sftp, target):
                    raise
                return False
            return True
        finally:
            with suppress(OSError, EOFError, paramiko.SSHException):
                sftp.remove(unfinished)

    def _make_folder(self, sftp: paramiko.SFTPClient, folder: str) -> None:
        if folder in ("", "/") or folder in self._folders:
            return
        if not _exists(sftp, folder):
            self._make_folder(sftp, dirname(folder))
            # Another writer may have been quicker.
            with suppress(OSError):
                sftp.mkdir(folder)
        elif folder == self._full(_UNFINISHED):
            _sweep(sftp, folder)
        self._folders.add(folder)

    def _full(self, path: str) -> str:
        return f"{self._connection.root}/{path}".removeprefix("./")

    @contextmanager
    def _session(self, done: str, kind: type[AdzError] = AdzError) -> Iterator[paramiko.SFTPClient]:
        try:
            with self._connection.session() as sftp:
                yield sftp
        except (OSError, EOFError, paramiko.SSHException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise kind(
                f"{self.url} cannot be {done}: {reason[:300]}", "check the folder and its rights"
            ) from error


def _exists(sftp: paramiko.SFTPClient, path: str) -> bool:
    try:
        sftp.stat(path)
    except FileNotFoundError:
        return False
    return True


def _walk(sftp: paramiko.SFTPClient, folder: str) -> Iterator[str]:
    with suppress(FileNotFoundError):
        for entry in sftp.listdir_attr(folder):
            path = f"{folder}/{entry.filename}"
            if stat.S_ISDIR(entry.st_mode or 0):
                yield from _walk(sftp, path)
            else:
                yield path


def _sweep(sftp: paramiko.SFTPClient, folder: str) -> None:
    """Delete what killed writers left. A day is longer than any upload takes."""
    before = time.time() - _ABANDONED_SECONDS
    for entry in sftp.listdir_attr(folder):
        if (entry.st_mtime or before) < before:
            with suppress(FileNotFoundError):
                sftp.remove(f"{folder}/{entry.filename}")
