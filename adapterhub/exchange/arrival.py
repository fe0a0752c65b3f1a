"""Where the files of a version come together before the registry receives it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from adapterhub.exchange.found import remote_files
from adapterhub.exchange.partial import partial_file, partial_path
from adapterhub.manifest import Manifest
from adapterhub.protocols import Registry, RemoteFile

# A smaller file is rather read again than kept when a download breaks off.
_KEEP_FROM = 1 << 20


@dataclass
class Arrival:
    """The files of one version in `folder`: what was here is copied, the rest is to be read.

    missing: each file to read, once for equal bytes, and the open file for them.
    """

    folder: Path
    held: ExitStack
    missing: list[tuple[RemoteFile, BinaryIO]] = field(default_factory=list)
    _twins: list[tuple[Path, Path]] = field(default_factory=list)
    _kept: list[RemoteFile] = field(default_factory=list)

    def prepare(self, registry: Registry, manifest: Manifest, waiting: Callable[[], None]) -> None:
        """Copy what `registry` holds, and open files for the rest.

        The kept files of broken downloads are locked in the order of their digests, so that two
        processes cannot wait for each other. `waiting` is called where one has to wait.
        """
        (self.folder / "payload").mkdir()
        first: dict[str, RemoteFile] = {}
        for file in remote_files(manifest):
            target = self.target(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            twin = first.setdefault(file.record.sha256, file)
            if twin is not file:
                self._twins.append((self.target(twin), target))
        for _, file in sorted(first.items()):
            if registry.copy_blob(file.record, self.target(file)):
                continue
            if file.record.size < _KEEP_FROM:
                stream: BinaryIO = self.held.enter_context(self.target(file).open("w+b"))
                self.missing.append((file, stream))
            else:
                self._take_up(registry, file, waiting)

    def _take_up(self, registry: Registry, file: RemoteFile, waiting: Callable[[], None]) -> None:
        stream = self.held.enter_context(partial_file(file.record.sha256, waiting))
        # Who held it until now may have stored the file meanwhile.
        if registry.copy_blob(file.record, self.target(file)):
            partial_path(file.record.sha256).unlink()
            return
        self._kept.append(file)
        self.missing.append((file, stream))

    def target(self, file: RemoteFile) -> Path:
        """Where the file's bytes end up."""
        inside = file.name if file.name.startswith("artifacts/") else f"payload/{file.name}"
        return self.folder / inside

    def finish(self) -> None:
        """Give what was read whole its place. The kept files stay until `forget`, so that who
        waits for one finds it stored, and a refusal later does not cost the download."""
        for file in self._kept:
            source, target = partial_path(file.record.sha256), self.target(file)
            try:
                target.hardlink_to(source)
            except OSError:
                # Not every file system has links.
                shutil.copyfile(source, target)
        for source, target in self._twins:
            shutil.copyfile(source, target)

    def forget(self) -> None:
        """Delete the kept files: the registry has them."""
        for file in self._kept:
            partial_path(file.record.sha256).unlink(missing_ok=True)
