"""Content-addressed files: `blobs/sha256/<hex>`, read-only, never changed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.manifest import FileRecord, sha256_of
from adapterhub.reference import check_file_name
from adapterhub_registry import disk

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def is_intact(body: object, digest: str) -> TypeGuard[bytes]:
    """Whether these are the bytes of `digest`; a damaged database may hold anything in their
    place."""
    return isinstance(body, bytes) and sha256_of(body) == digest


class Blobs:
    """The store of files, each named by the sha256 of its bytes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def is_named(self, name: str) -> bool:
        """Whether a file of that name is a blob, and no stray file."""
        return _DIGEST.fullmatch(f"sha256:{name}") is not None

    def path(self, digest: str) -> Path:
        """Where the blob `sha256:hex` lies."""
        match = _DIGEST.fullmatch(digest)
        if not match:
            raise AdzError(f"{digest!r} is not a digest", exit_code=EXIT_VERIFICATION)
        return self.directory / match[1]

    def publish(self, staged: Iterable[tuple[Path, str]]) -> None:
        """Move staged files, already on the disk, in under their digests.

        A blob that is there is replaced by the same bytes: that heals a damaged one.
        """
        for path, digest in staged:
            disk.rename(path, self.path(digest))
        disk.sync(self.directory)

    def read(self, digest: str) -> bytes | None:
        """A small blob's bytes, or None when it is missing or damaged. A disk that fails says
        neither: its OSError is the caller's."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            return None
        return data if is_intact(data, digest) else None

    def copy_to(self, record: FileRecord, target: Path) -> bool:
        """Write a copy of a blob to the new file `target`; False, and no file, where the blob is
        missing or damaged."""
        try:
            copied = disk.copy(self.path(record.sha256), target)
        except FileNotFoundError:
            copied = None
        if copied != record:
            disk.remove(target)
        return copied == record

    def copy_out(self, files: Mapping[str, FileRecord], directory: Path) -> None:
        """Write copies of blobs below `directory`, each verified as it is copied."""
        for name, record in files.items():
            target = directory / check_file_name(name)
            disk.make_directory(target.parent)
            try:
                copied = disk.copy(self.path(record.sha256), target)
            except FileNotFoundError:
                raise _damaged(name, record, "is missing") from None
            if copied != record:
                raise _damaged(name, record, "is damaged")


def stage(source: Path, directory: Path) -> dict[str, FileRecord]:
    """Copy every file below `source` to `directory`, read-only; who needs them on the disk syncs.

    Symbolic links and special files are refused. Returns name -> record, by name.
    """
    disk.make_directory(directory)
    records = {}
    for name, path in sorted(_files_below(source)):
        target = directory / name
        disk.make_directory(target.parent)
        records[name] = disk.copy(path, target)
        disk.protect(target)
    return records


def stage_bytes(data: bytes, directory: Path) -> tuple[Path, str]:
    """Write small `data` to a new file in `directory`, read-only; who needs it on the disk syncs.

    Returns the file and its digest, by which it is called.
    """
    digest = sha256_of(data)
    staged = directory / digest.removeprefix("sha256:")
    disk.write(staged, data)
    disk.protect(staged)
    return staged, digest


def _files_below(source: Path) -> Iterator[tuple[str, Path]]:
    if not source.is_dir():
        raise usage_error(f"there is no directory {source}")
    for folder, subfolders, names in os.walk(source, onerror=_raise):
        for name in [*subfolders, *names]:
            path = Path(folder, name)
            relative = check_file_name(path.relative_to(source).as_posix())
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield relative, path
            elif not stat.S_ISDIR(mode):
                raise AdzError(
                    f"{path} is not a regular file",
                    "give a copy of the file itself",
                    exit_code=EXIT_VERIFICATION,
                )


def _raise(error: OSError) -> None:
    raise error


def _damaged(name: str, record: FileRecord, problem: str) -> AdzError:
    return AdzError(
        f"the stored file {name} ({record.sha256[:19]}) {problem}",
        "run 'adz fsck' to see which versions are concerned",
        exit_code=EXIT_VERIFICATION,
    )
