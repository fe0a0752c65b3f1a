"""The log of a server, which never grows beyond a bound, whoever writes into it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_BYTES = 16 * 2**20
_LOOK_SECONDS = 10.0


def set_aside(log: Path) -> None:
    """Let a new server begin with an empty log; the last one's stays beside it, as `.1`."""
    if log.exists() and not _is_our_output(log):
        log.replace(previous(log))


def previous(log: Path) -> Path:
    """Where what was in the log before is."""
    return log.with_name(f"{log.name}.1")


@contextmanager
def bounded(log: Path) -> Iterator[None]:
    """Within the block the log stays below twice `MOST_BYTES`."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            bound(log, MOST_BYTES)

    thread = threading.Thread(target=watch, name="adapterhub-log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def bound(log: Path, most: int) -> None:
    """Copy a log of more than `most` bytes aside and empty it: several processes have it open,
    each to append, so it cannot be renamed."""
    with suppress(OSError):
        if log.stat().st_size > most:
            shutil.copyfile(log, previous(log))
            os.truncate(log, 0)


def _is_our_output(log: Path) -> bool:
    """Whether this process writes there already, as one in the background does."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(2), log.stat())
    return False
