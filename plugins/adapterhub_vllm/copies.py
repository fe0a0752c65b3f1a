"""The verified files of one version, in a directory that nobody else knows, for vLLM to read.

vLLM opens a path by itself. A copy that is checked while it is made, and that is gone once it has
been read, is what stands between the check and the read.
"""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.staging import home_staging, staging_folder

# Files there are memory: written in a fifth of the time, and a first answer waits for them.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of mode 0700 is made in it
_PREFIX = "serve-"


class Copies:
    """Makes them, one at a time."""

    def __init__(self) -> None:
        self._folders = ExitStack()
        self._made: dict[Path, Path] = {}
        atexit.register(self._folders.close)

    @contextmanager
    def new(self, registry: Any, version: Version) -> Iterator[Path]:
        """A directory named by the digest, with the version's files; it is gone again where the
        block fails. Raises AdzError for a file that is missing or damaged."""
        directory = self._folder(version) / version.digest.removeprefix("sha256:")
        directory.mkdir(mode=0o700)
        try:
            _copy(registry, version, directory)
            yield directory
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def _folder(self, version: Version) -> Path:
        size = sum(record.size for record in version.manifest.files.values())
        parent, prefix = home_staging(), _PREFIX
        if _has_room(_MEMORY, size):
            # Other users' lie there too.
            parent, prefix = _MEMORY, f"adapterhub-{os.getuid()}-{_PREFIX}"
        if parent not in self._made:
            self._made[parent] = self._folders.enter_context(staging_folder(parent, prefix))
        return self._made[parent]


def _has_room(folder: Path, size: int) -> bool:
    """Whether it takes `size` bytes and is half empty still."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    room = state.f_bavail - state.f_blocks // 2
    return os.access(folder, os.W_OK) and size < room * state.f_frsize


def _copy(registry: Any, version: Version, directory: Path) -> None:
    for name, record in version.manifest.files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not registry.copy_blob(record, target):
            raise AdzError(
                f"the stored file {name} of {version.reference} is missing or damaged",
                "run 'adz fsck --repair' where the server's registry is",
            )
