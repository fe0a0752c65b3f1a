"""A remote: a folder, below it one for each adapter with its files and tags."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapterhub import AdzError
from adapterhub.protocols import RemoteFile, RemoteVersion
from adapterhub.reference import check_name

_CHUNK = 2**20


class Readable:
    """A `protocols.Remote`: NAME/files/SHA256, and NAME/tags/TAG/manifest.json and signature."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = Path(unquote(urlsplit(url).path))

    def names(self) -> list[str]:
        """Every adapter there, those of teams (`team/name`) too."""
        found = self._root.glob("**/tags")
        return sorted(path.parent.relative_to(self._root).as_posix() for path in found)

    def tags(self, name: str) -> list[str]:
        """Numbers and aliases; none where the adapter is not there."""
        folder = self._folder(name) / "tags"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        """The version of a tag, or None."""
        folder = self._folder(name) / "tags" / tag
        manifest, signature = folder / "manifest.json", folder / "signature"
        if not manifest.is_file():
            return None
        signed = signature.read_bytes() if signature.is_file() else None
        return RemoteVersion(manifest.read_bytes(), signed)

    def contains(self, name: str, file: RemoteFile) -> bool:
        """Whether the bytes are there, all of them."""
        path = self._file(name, file)
        return path.is_file() and path.stat().st_size == file.record.size

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        """The bytes from `offset` on."""
        with self._file(name, file).open("rb") as opened:
            opened.seek(offset)
            while chunk := opened.read(_CHUNK):
                yield chunk

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        """Copy one file."""
        _place(self._file(name, file), source.read_bytes())
        sent(file.record.size)

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        """Numbers first, so that no alias points at what is not there; a number is for ever."""
        for tag in sorted(tags, key=lambda tag: not tag.isdigit()):
            there = self.find(name, tag)
            if tag.isdigit() and there and there.manifest != version.manifest:
                raise AdzError(f"{name}@{tag} is another version in {self.url}")
            folder = self._folder(name) / "tags" / tag
            if version.signature is not None:
                _place(folder / "signature", version.signature)
            elif there and there.manifest != version.manifest:
                (folder / "signature").unlink(missing_ok=True)
            _place(folder / "manifest.json", version.manifest)
        _place(self._folder(name) / "README.md", card.encode())

    def _folder(self, name: str) -> Path:
        return self._root / check_name(name)

    def _file(self, name: str, file: RemoteFile) -> Path:
        return self._folder(name) / "files" / file.record.sha256.removeprefix("sha256:")


def _place(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise AdzError(f"{error.strerror}: {path}", "check the folder and its rights") from error
