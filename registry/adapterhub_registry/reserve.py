"""A little space that is kept for what frees space: on a full disk nothing else could be written.

Removing a version writes to the journal and to the database before it can free anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapterhub_registry import disk

SIZE = 256 * 1024


class Reserve:
    """A file that holds the space, and that is deleted when it is needed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "reserve"

    def keep(self) -> None:
        """Set the space aside where there is plenty of it."""
        if not self.path.exists() and self._free() > 4 * SIZE:
            # Another process may do the same, and the disk may fill just now.
            with suppress(OSError):
                disk.write(self.path, bytes(SIZE))

    @contextmanager
    def spent(self) -> Iterator[None]:
        """On a full disk the space is there for the length of the block."""
        if self._free() < SIZE:
            with suppress(FileNotFoundError):
                disk.remove(self.path)
        try:
            yield
        finally:
            self.keep()

    def _free(self) -> int:
        facts = os.statvfs(self.path.parent)
        return facts.f_bavail * facts.f_frsize
