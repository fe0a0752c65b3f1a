"""A remote: a folder, below it one for each adapter with its files and tags."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapterhub import AdzError
from adapterhub.protocols import RemoteFile, RemoteVersion
from adapterhub.reference import check_name


class Readable:
    """A `protocols.Remote`: NAME/files/SHA256, and NAME/tags/TAG/manifest.json and signature."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = Path(unquote(urlsplit(url).path))

    def names(self) -> list[str]:
        return sorted(str(p.parent.relative_to(self._root)) for p in self._root.glob("**/tags"))

    def tags(self, name: str) -> list[str]:
        return sorted(path.name for path in (self._folder(name) / "tags").glob("*"))

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        folder = self._folder(name) / "tags" / tag
        manifest, signature = _bytes(folder / "manifest.json"), _bytes(folder / "signature")
        return None if manifest is None else RemoteVersion(manifest, signature)

    def contains(self, name: str, file: RemoteFile) -> bool:
        path = self._file(name, file)
        return path.is_file() and path.stat().st_size == file.record.size

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        with self._file(name, file).open("rb") as opened:
            opened.seek(offset)
            yield from iter(lambda: opened.read(2**20), b"")

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        _place(self._file(name, file), source.read_bytes())
        sent(file.record.size)

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        # Numbers first, so that no alias points at what is not there; a number is for ever.
        for tag in sorted(tags, key=lambda tag: not tag.isdigit()):
            there = self.find(name, tag)
            if tag.isdigit() and there and there.manifest != version.manifest:
                raise AdzError(f"{name}@{tag} is another version in {self.url}")
            _place(self._folder(name) / "tags" / tag / "signature", version.signature)
            _place(self._folder(name) / "tags" / tag / "manifest.json", version.manifest)

    def _folder(self, name: str) -> Path:
        return self._root / check_name(name)

    def _file(self, name: str, file: RemoteFile) -> Path:
        return self._folder(name) / "files" / file.record.sha256.removeprefix("sha256:")


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _place(path: Path, data: bytes | None) -> None:
    """Write a file that is there whole or not at all; without data there is none."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if data is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(data)
            unfinished.replace(path)
    except OSError as error:
        raise AdzError(f"{error.strerror}: {path}", "check the folder and its rights") from error
