"""Plain directories that PEFT and vLLM open: copies of blobs, made on demand and verified.

`views/<manifest-hex>/` holds the payload's files and nothing else. Beside it,
`views/<manifest-hex>.json` notes size, time and inode of each file as they were when their
bytes were verified; only what differs from it is hashed again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from adapterhub.bases.digests import hash_file
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord, Version, canonical_json
from adapterhub_registry import disk
from adapterhub_registry.blobs import Blobs

Stamps = dict[str, list[int]]


class Views:
    """The directory of views. `staging` gives a fresh directory on the same file system."""

    def __init__(
        self,
        directory: Path,
        blobs: Blobs,
        staging: Callable[[], AbstractContextManager[Path]],
    ) -> None:
        self.directory = directory
        self._blobs = blobs
        self._staging = staging

    def path(self, version: Version) -> Path:
        """The version's directory, made when it is not there; a changed one is refused."""
        view = self.directory / version.digest.removeprefix("sha256:")
        if not view.is_dir():
            self._make(version, view)
        problem = self.problem(version)
        if problem:
            raise AdzError(
                f"the files of {version.reference} were changed by hand: {problem} in {view}",
                "versions do not change: keep what you need elsewhere and delete this "
                "directory, it is made anew",
                exit_code=EXIT_VERIFICATION,
            )
        return view

    def problem(self, version: Version, *, trust_times: bool = True) -> str | None:
        """What is wrong with an existing view, or None. A view that is right is noted as such.

        trust_times: do not hash what has the size, time and inode that it had when it was.
        """
        view = self.directory / version.digest.removeprefix("sha256:")
        files = version.manifest.files
        noted, present = self._noted(view) if trust_times else {}, _stamps(view)
        if present == noted:
            return None
        for name in sorted(present.keys() ^ files.keys()):
            return f"{name} is missing" if name in files else f"{name} was added"
        for name, record in files.items():
            if noted.get(name) != present[name] and _record(view / name) != record:
                return f"{name} differs"
        self._note(view, present)
        return None

    def _make(self, version: Version, view: Path) -> None:
        with self._staging() as staging:
            made = staging / "view"
            disk.make_directory(made)
            self._blobs.copy_out(version.manifest.files, made)
            for name in version.manifest.files:
                disk.protect(made / name)
                disk.sync(made / name)
            for folder in {(made / name).parent for name in version.manifest.files} | {made}:
                disk.sync(folder)
            try:
                disk.rename(made, view)
            except OSError as error:
                # Another process made the same view first.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return
            self._note(view, _stamps(view))

    def _noted(self, view: Path) -> Stamps:
        try:
            noted: Stamps = json.loads(view.with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            return {}
        return noted

    def _note(self, view: Path, stamps: Stamps) -> None:
        with self._staging() as staging:
            note = staging / "note"
            disk.write(note, canonical_json(stamps))
            disk.rename(note, view.with_suffix(".json"))


def _stamps(view: Path) -> Stamps:
    found: Stamps = {}
    for folder, _, names in os.walk(view):
        for name in names:
            path = Path(folder, name)
            facts = path.lstat()
            found[path.relative_to(view).as_posix()] = [
                facts.st_size, facts.st_mtime_ns, facts.st_ino,
            ]  # fmt: skip
    return found


def _record(path: Path) -> FileRecord | None:
    if path.is_symlink():
        return None
    return FileRecord(sha256=hash_file(path), size=path.stat().st_size)
