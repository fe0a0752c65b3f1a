"""A remote over anything that keeps files: what lies where, and when a version is there.

Below the URL:

    blobs/sha256/<hex>          each file once, whatever adapters hold it; manifests too
    names/<name>/_tags/<tag>    {"manifest": "sha256:...", "signature": "sha256:..." or null}
    names/<name>/README.md      the card that was pushed last

A tag is a version's number or an alias. There is no index that two writers could overwrite: a
version is there when the small file of its number is, which is written last and only once, after
every blob that it needs. Each file appears whole: how is the store's business.

Every remote of this kind reads what another one wrote: a folder that is pushed to by one protocol
is pulled from by another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import canonical_json, sha256_of
from adapterhub.protocols import RemoteFile, RemoteVersion
from adapterhub.reference import check_alias, check_name

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_TAGS = re.compile(r"names/(.+)/_tags/([^/]+)")
_MAX_TAG = 2**12
_MAX_SMALL = 4 * 2**20
"""Bytes of a manifest or a signature, at most."""


class FileStore(Protocol):
    """Files by their path below the URL, in segments of `[A-Za-z0-9._-]` with a slash between.

    Its methods may be called from several threads. They raise AdzError for what the user can mend,
    and tell no credentials.
    """

    def size(self, path: str) -> int | None:
        """In bytes, or None where there is no such file."""

    def get(self, path: str, limit: int) -> bytes | None:
        """At most `limit` bytes of a file, or None where there is no such file."""

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """A file's bytes from `offset` on, in chunks; `protocols.TransferInterruptedError` where
        the rest may come at another try."""

    def put(self, path: str, data: bytes, *, new: bool = False) -> bool:
        """Write a small file, whole or not at all, over one that is there; with `new` only where
        there is none: False where there is."""

    def upload(self, path: str, source: Path, sent: Callable[[int], None]) -> None:
        """Write a file, whole or not at all; `sent` is told how many bytes went since it was last
        called."""

    def below(self, folder: str) -> Iterator[str]:
        """The paths of all files below a folder."""


class FileStoreRemote:
    """A `protocols.Remote` whose files lie in `store`."""

    def __init__(self, url: str, store: FileStore) -> None:
        self.url, self._store = url, store

    def names(self) -> list[str]:
        """Every adapter there; see `protocols.Remote`."""
        return sorted({name for name, _ in self._published("names")})

    def tags(self, name: str) -> list[str]:
        """The numbers and aliases of an adapter; see `protocols.Remote`."""
        return sorted(tag for _, tag in self._published(f"names/{check_name(name)}/_tags"))

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        """The version that a number or an alias means; see `protocols.Remote`."""
        found = self._pointer(name, tag)
        if found is None:
            return None
        manifest, signature = found
        return RemoteVersion(
            self._small_blob(manifest), self._small_blob(signature) if signature else None
        )

    def contains(self, name: str, file: RemoteFile) -> bool:
        """Whether the file's bytes are there; see `protocols.Remote`."""
        return self._store.size(_blob(file.record.sha256)) == file.record.size

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        """The file's bytes from `offset` on; see `protocols.Remote`."""
        return self._store.read(_blob(file.record.sha256), offset)

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        """Upload one file; see `protocols.Remote`."""
        # A blob that is not what its name says would be found there by every later push.
        with source.open("rb") as opened:
            digest = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != file.record.sha256:
            raise AdzError(
                f"{source} changed while it was pushed", "try again", exit_code=EXIT_VERIFICATION
            )
        self._store.upload(_blob(digest), source, sent)

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        """Make a version visible; see `protocols.Remote`. A number that means another version
        there already is refused."""
        digests = [self._put_blob(version.manifest)]
        if version.signature is not None:
            digests.append(self._put_blob(version.signature))
        # The numbers first: an alias never points at what is not there yet.
        for tag in sorted(tags, key=lambda tag: not tag.isdigit()):
            self._point(name, tag, *digests)
        self._store.put(f"names/{check_name(name)}/README.md", card.encode())

    def _point(self, name: str, tag: str, manifest: str, signature: str | None = None) -> None:
        path = _tag_path(name, tag)
        body = canonical_json({"manifest": manifest, "signature": signature})
        if not tag.isdigit():
            self._store.put(path, body)
            return
        if self._store.put(path, body, new=True):
            return
        found = self._pointer(name, tag)
        if found is None or found[0] != manifest:
            raise AdzError(
                f"{name}@{tag} is another version in {self.url}",
                "pull it under another name, or push yours under another one",
                exit_code=EXIT_VERIFICATION,
            )
        # The same version once more: a signature may have been added, and is not lost.
        if signature is not None:
            self._store.put(path, body)

    def _pointer(self, name: str, tag: str) -> tuple[str, str | None] | None:
        data = self._store.get(_tag_path(name, tag), _MAX_TAG)
        if data is None:
            return None
        with suppress(ValueError, TypeError, KeyError):
            value = json.loads(data)
            digests = [value["manifest"], value["signature"]]
            if all(d is None or _DIGEST.fullmatch(d) for d in digests) and digests[0]:
                return digests[0], digests[1]
        raise self._damaged(f"the tag {tag} of {name}")

    def _put_blob(self, data: bytes) -> str:
        digest = sha256_of(data)
        self._store.put(_blob(digest), data)
        return digest

    def _small_blob(self, digest: str) -> bytes:
        data = self._store.get(_blob(digest), _MAX_SMALL)
        if data is None or sha256_of(data) != digest:
            raise self._damaged(digest[:19])
        return data

    def _published(self, folder: str) -> Iterator[tuple[str, str]]:
        for path in self._store.below(folder):
            match = _TAGS.fullmatch(path)
            # What somebody else put there is no adapter of ours.
            with suppress(AdzError):
                if match:
                    _tag_path(match[1], match[2])
                    yield match[1], match[2]

    def _damaged(self, what: str) -> AdzError:
        return AdzError(
            f"{what} in {self.url} is missing or damaged",
            "push the version again",
            exit_code=EXIT_VERIFICATION,
        )


def _tag_path(name: str, tag: str) -> str:
    if not (tag.isascii() and tag.isdigit()):
        check_alias(tag)
    return f"names/{check_name(name)}/_tags/{tag}"


def _blob(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if not match:
        raise AdzError(f"{digest!r} is not a digest", exit_code=EXIT_VERIFICATION)
    return f"blobs/sha256/{match[1]}"
