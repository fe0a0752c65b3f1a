"""Folders for what is not finished yet: whole at the end, or gone, also after a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterhub.errors import usage_error
from adapterhub.home import adz_home

GRACE_SECONDS = 3600.0


def home_staging() -> Path:
    """Where merges, imports and new bases are prepared; 'adz gc' sweeps it."""
    return adz_home() / "staging"


@contextmanager
def staging_folder(parent: Path, prefix: str = "") -> Iterator[Path]:
    """A new folder in `parent` for the length of the block.

    What a killed process left there under the same prefix is deleted first. Raises a usage
    error where `parent` cannot be a directory.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise usage_error(f"{parent} is not a directory", "give another path") from None
    sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    # The lock ends with the process, so a killed one holds nothing.
    lease = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lease, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lease)


def sweep(
    parent: Path,
    prefix: str = "",
    *,
    grace_seconds: float = GRACE_SECONDS,
    dry_run: bool = False,
) -> int:
    """Delete the folders that no process holds and that are older than `grace_seconds`.

    Returns their size in bytes.
    """
    cutoff = time.time() - grace_seconds
    size = 0
    for folder in parent.glob(f"{prefix}*"):
        if _is_abandoned(folder, cutoff):
            size += sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
    return size


def _is_abandoned(folder: Path, cutoff: float) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_mtime < cutoff
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
