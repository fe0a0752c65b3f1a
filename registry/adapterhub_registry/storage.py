"""What a registry consists of on the disk: blobs, views, staging, trash and the database."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from adapterhub.errors import AdzError
from adapterhub.file_systems import network_file_system
from adapterhub_registry import disk
from adapterhub_registry.blobs import Blobs
from adapterhub_registry.database import Database
from adapterhub_registry.reserve import Reserve
from adapterhub_registry.views import Views

ALLOW_NETWORK = "ADZ_ALLOW_NETWORK"


class Storage:
    """The parts below `home/registry`; they are made when they are not there.

    busy_seconds: how long to wait while another process writes.
    """

    def __init__(self, home: Path, busy_seconds: float) -> None:
        self.home = home
        _refuse_network(home)
        self.root = home / "registry"
        self.ingest = self.root / "ingest"
        self.trash = self.root / "trash"
        self.blobs = Blobs(self.root / "blobs" / "sha256")
        self.views = Views(self.root / "views", self.blobs, self.staging)
        for directory in (self.blobs.directory, self.views.directory, self.ingest, self.trash):
            disk.make_lasting_directory(directory)
        self.reserve = Reserve(self.root)
        self.reserve.keep()
        self.database = Database(self.root, self.blobs.read, busy_seconds)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh directory on the same file system for the length of the block."""
        with ExitStack() as held:
            directory = self._leased_folder(held)
            try:
                yield directory
            finally:
                # What cannot be deleted now, `collect` deletes; a finished commit stays finished.
                with suppress(OSError):
                    disk.remove(directory)

    def _leased_folder(self, held: ExitStack) -> Path:
        while True:
            directory = self.ingest / uuid.uuid4().hex
            disk.make_directory(directory)
            if held.enter_context(disk.lease(directory)):
                return directory
            # A `collect` without grace took it for abandoned before it was leased.


def _refuse_network(home: Path) -> None:
    """SQLite's log is shared memory, and locks may reach no further than one machine."""
    if os.environ.get(ALLOW_NETWORK):
        return
    kind = network_file_system(home)
    if kind is not None:
        raise AdzError(
            f"{home} lies on a network file system ({kind}), where locks are not reliable and a "
            "registry can be damaged",
            "set ADZ_HOME to a folder on a local disk and share versions with 'adz push'; "
            f"{ALLOW_NETWORK}=1 opens it nevertheless",
        )
