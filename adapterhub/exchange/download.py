"""Downloading one file: hashed as it comes, stopped at its size + 1, gone on with after a break."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.found import Found
from adapterhub.exchange.parallel import StoppedError
from adapterhub.protocols import Remote, RemoteFile, TransferInterruptedError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Download:
    """What the files of one version have in common while they are read.

    advance: is told how many more bytes of the files are there. stop: ends the download once set.
    """

    remote: Remote
    found: Found
    bounds: Bounds
    advance: Callable[[int], None]
    stop: threading.Event

    def fetch(self, file: RemoteFile, target: BinaryIO) -> int:
        """Bring `target`, which may hold a first part of the file, to its whole content; return
        how many bytes the remote sent for that.

        Raises AdzError (exit code 3) where the remote's bytes are not those of the manifest. A
        digest that is wrong is tried once more from the first byte: the part that was kept, or
        the way here, may be what is damaged.
        """
        transfer = _Transfer(self, file, target)
        transfer.take_up()
        transfer.complete()
        if not transfer.is_right():
            transfer.restart()
            transfer.complete()
            if not transfer.is_right():
                transfer.restart()
                raise self.wrong(file, f"its bytes are not those of {file.record.sha256[:19]}")
        target.flush()
        return transfer.fetched

    def wrong(self, file: RemoteFile, problem: str) -> AdzError:
        """The error of a file that is not what the manifest says."""
        return AdzError(
            f"{self.remote.url}: {self.found.reference}: {file.name}: {problem}",
            "nothing was stored; the remote is damaged, or someone changed it",
            exit_code=EXIT_VERIFICATION,
        )


class _Transfer:
    """The state of one file: how far it is, and the digest up to there."""

    def __init__(self, download: Download, file: RemoteFile, target: BinaryIO) -> None:
        self._download = download
        self._file = file
        self._target = target
        self._digest = hashlib.sha256()
        self._offset = 0
        self.fetched = 0

    def take_up(self) -> None:
        """Go on from what `target` holds."""
        self._target.seek(0)
        while chunk := self._target.read(_CHUNK):
            self._count(chunk)

    def restart(self) -> None:
        """Begin with the first byte."""
        self._download.advance(-self._offset)
        self._target.seek(0)
        self._target.truncate()
        self._digest, self._offset = hashlib.sha256(), 0

    def is_right(self) -> bool:
        """Whether the whole has the digest of the manifest."""
        return "sha256:" + self._digest.hexdigest() == self._file.record.sha256

    def complete(self) -> None:
        """Read until the size is reached, with pauses between tries that bring nothing."""
        bounds, size = self._download.bounds, self._file.record.size
        failures = 0
        while self._offset < size:
            before = self._offset
            try:
                self._read()
                reason = "the remote stopped sending"
            except TransferInterruptedError as error:
                reason = error.message
            if self._offset >= size:
                return
            moved = self._offset - before
            failures = 1 if moved > bounds.slowest * bounds.patience else failures + 1
            if failures >= bounds.tries:
                raise self._gave_up(reason)
            if self._download.stop.wait(bounds.pause * 2 ** (failures - 1)):
                raise StoppedError

    def _read(self) -> None:
        download, size = self._download, self._file.record.size
        pace = _Pace(download.bounds)
        found = download.found
        answer = download.remote.read(
            found.manifest.name, found.remote_version, self._file, self._offset
        )
        with _closing(answer) as chunks:
            for chunk in chunks:
                if self._offset + len(chunk) > size:
                    self.restart()
                    raise download.wrong(self._file, f"it is longer than its {size} bytes")
                self._target.write(chunk)
                self._count(chunk)
                self.fetched += len(chunk)
                if download.stop.is_set():
                    raise StoppedError
                pace.check(len(chunk))

    def _count(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._offset += len(chunk)
        self._download.advance(len(chunk))

    def _gave_up(self, reason: str) -> AdzError:
        found, size = self._download.found, self._file.record.size
        return AdzError(
            f"{self._download.remote.url}: {found.reference}: {self._file.name} broke off at "
            f"{self._offset} of {size} bytes: {reason}",
            "nothing was stored; the same command goes on from there",
        )


class _Pace:
    """Notices bytes that trickle: no single read takes too long, but the file never ends."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._begin = time.monotonic()
        self._bytes = 0

    def check(self, count: int) -> None:
        """Count what came; raise TransferInterruptedError where it was too little for too long."""
        self._bytes += count
        passed = time.monotonic() - self._begin
        if passed < self._bounds.patience:
            return
        if self._bytes < self._bounds.slowest * passed:
            raise TransferInterruptedError(f"slower than {self._bounds.slowest:.0f} bytes a second")
        self._begin, self._bytes = time.monotonic(), 0


@contextmanager
def _closing(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    # A generator that is left in the middle holds its connection until it is closed.
    try:
        yield chunks
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
