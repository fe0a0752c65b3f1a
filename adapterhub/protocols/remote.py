"""Where versions are pushed to and pulled from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adapterhub.errors import AdzError

if TYPE_CHECKING:
    from adapterhub.manifest import FileRecord


class TransferInterruptedError(AdzError):
    """The bytes of a file stopped coming; who reads tries again from where they stopped."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a version. `name` is that of the payload (`adapter_config.json`), or
    `artifacts/` and the name of an artifact."""

    name: str
    record: FileRecord


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """A version as a remote holds it.

    manifest: the stored bytes, whose sha256 is the version's digest. signature: the bytes of a
    signature bundle, if one was pushed. location: the remote's own note of where the files lie,
    such as a commit; nobody else reads it.
    """

    manifest: bytes
    signature: bytes | None = None
    location: str = ""


class Remote(Protocol):
    """A place for versions, opened by its URL. `impl` of a `specs.Remote` is a callable:
    URL -> `Remote`.

    A remote moves bytes and is not trusted: who calls it checks sizes and digests. Its methods
    may be called from several threads. They raise AdzError for what the user can mend (no such
    repository, no right to it, a server that does not answer after a few tries).
    """

    url: str

    def names(self) -> list[str]:
        """Every adapter there. Raises AdzError where the remote cannot list."""

    def tags(self, name: str) -> list[str]:
        """The version numbers and aliases of an adapter as text; none where it is not there."""

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        """The version that a number or an alias means there now, or None."""

    def contains(self, name: str, file: RemoteFile) -> bool:
        """Whether the file's bytes are there already. A remote that cannot tell says no."""

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        """The file's bytes from `offset` on, in chunks of at most a few MiB, each as it comes.

        Raises TransferInterruptedError where the rest may come at another try.
        """

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        """Upload one file; `sent` is told how many bytes went since it was last called."""

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        """Make a version visible under its number and aliases, after all of its files were
        written. Until then nobody can find it. card: a README in Markdown for who looks there."""
