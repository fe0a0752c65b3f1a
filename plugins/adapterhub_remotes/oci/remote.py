"""`OciRemote`: the `protocols.Remote` of an OCI registry."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord, sha256_of
from adapterhub.protocols import RemoteFile, RemoteVersion, TransferInterruptedError
from adapterhub_remotes.oci.address import parse_address
from adapterhub_remotes.oci.answer import Answer, damaged
from adapterhub_remotes.oci.credentials import find_credentials
from adapterhub_remotes.oci.image import IMAGE, build_image, config_of, signature_of
from adapterhub_remotes.oci.session import Call, Session
from adapterhub_remotes.oci.upload import Upload

_CHUNK = 1 << 20
_PAGES = 200
_PAGE = 1000
# What other tools attach to a digest (signatures, lists of referrers) has a tag too.
_ATTACHED = re.compile(r"sha256-[0-9a-f]{64}")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


class OciRemote:
    """The adapters below `oci://host[:port]/path`.

    timeout_seconds: how long the registry may be silent. pause: waits for so many seconds
    between tries.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 30,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._address = parse_address(url)
        self._pause = pause
        credentials = find_credentials(self._address.account)
        self._session = Session(self._address, credentials, timeout_seconds, pause)
        # Where a blob was seen or sent, so that another repository can take it from there.
        self._places: dict[str, str] = {}

    def names(self) -> list[str]:
        """Every adapter there; see `protocols.Remote`."""
        repositories = self._pages("/v2/_catalog", "registry:catalog:*", "repositories")
        if repositories is None:
            raise AdzError(f"{self._session.origin} does not list its repositories")
        names = (self._address.name_of(repository) for repository in repositories)
        return sorted({name for name in names if name is not None})

    def tags(self, name: str) -> list[str]:
        """The version numbers and aliases; see `protocols.Remote`."""
        repository = self._address.repository(name)
        found = self._pages(f"/v2/{repository}/tags/list", _pulling(repository), "tags") or []
        return [tag for tag in found if not _ATTACHED.match(tag)]

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        """The version of a tag; see `protocols.Remote`."""
        repository = self._address.repository(name)
        url = self._session.url(f"/v2/{repository}/manifests/{tag}")
        call = Call("GET", url, _pulling(repository), {"Accept": IMAGE})
        answer = self._session.request(call, {200, 404})
        if answer.status == 404:
            return None
        given = answer.headers.get("Docker-Content-Digest", "")
        if given.startswith("sha256:") and given != sha256_of(answer.body):
            raise damaged(url, f"is not {given[:19]}, which the registry says that it is")
        image = answer.json()
        manifest = self._small(repository, config_of(image, url))
        signature = signature_of(image, url)
        return RemoteVersion(manifest, self._small(repository, signature) if signature else None)

    def contains(self, name: str, file: RemoteFile) -> bool:
        """Whether the registry has the blob in the adapter's repository."""
        return self._has(self._address.repository(name), file.record)

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        """The file's bytes from `offset` on; see `protocols.Remote`."""
        repository = self._address.repository(name)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        call = self._blob("GET", repository, file.record.sha256, headers)
        with self._session.stream(call) as response:
            skip = self._skip(response, file, offset)
            for chunk in response.iter_raw():
                if len(chunk) <= skip:
                    skip -= len(chunk)
                    continue
                yield chunk[skip:] if skip else chunk
                skip = 0

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        """Upload one file; see `protocols.Remote`."""

        def bytes_from(offset: int) -> Iterator[bytes]:
            with source.open("rb") as opened:
                opened.seek(offset)
                while chunk := opened.read(_CHUNK):
                    yield chunk

        self._upload(self._address.repository(name), file.record, bytes_from, sent)

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        """Make a version visible; see `protocols.Remote`."""
        repository = self._address.repository(name)
        for body in (version.manifest, version.signature, card.encode()):
            if body is not None:
                self._put_small(repository, body)
        image = build_image(version.manifest, version.signature, card)
        digest = sha256_of(image)
        # The number first: an alias never points at what has none.
        for tag in sorted(tags, key=lambda tag: not tag.isdigit()):
            url = self._session.url(f"/v2/{repository}/manifests/{tag}")
            headers = {"Content-Type": IMAGE}
            call = Call("PUT", url, _pushing(repository), headers, lambda: image)
            answer = self._session.request(call, {200, 201, 202})
            given = answer.headers.get("Docker-Content-Digest", digest)
            if given != digest:
                raise damaged(url, f"is {given[:19]} there, but {digest[:19]} was sent")

    def _skip(self, response: httpx2.Response, file: RemoteFile, offset: int) -> int:
        """How many of the bytes that come lie before `offset`."""
        status = response.status_code
        if status == 404:
            raise AdzError(
                f"{self.url} has lost {file.name} ({file.record.sha256[:19]})",
                "push the version again from where it is whole",
                exit_code=EXIT_VERIFICATION,
            )
        if status == 206:
            given = response.headers.get("Content-Range", "")
            if not given.startswith(f"bytes {offset}-"):
                raise TransferInterruptedError(f"the registry sent another part: {given[:60]!r}")
            return 0
        if status == 200:
            return offset
        raise TransferInterruptedError(f"the registry answers {status}")

    def _small(self, repository: str, record: FileRecord) -> bytes:
        call = self._blob("GET", repository, record.sha256)
        body = self._session.request(call, {200}).body
        if len(body) != record.size or sha256_of(body) != record.sha256:
            raise damaged(call.url, "has other bytes than its digest says")
        return body

    def _put_small(self, repository: str, body: bytes) -> None:
        record = FileRecord(sha256=sha256_of(body), size=len(body))
        if not self._has(repository, record):
            self._upload(repository, record, lambda at: iter([body[at:]]), lambda count: None)

    def _has(self, repository: str, record: FileRecord) -> bool:
        call = self._blob("HEAD", repository, record.sha256)
        # Where a registry hands out its blobs from elsewhere, that may know GET only.
        answer = self._session.request(call, range(200, 500))
        size = answer.headers.get("Content-Length", str(record.size))
        if answer.status != 200 or size != str(record.size):
            return False
        self._places[record.sha256] = repository
        return True

    def _upload(
        self,
        repository: str,
        record: FileRecord,
        source: Callable[[int], Iterator[bytes]],
        sent: Callable[[int], None],
    ) -> None:
        other = self._places.get(record.sha256)
        Upload(self._session, repository, record, source, sent, self._pause).run(other)
        self._places[record.sha256] = repository

    def _blob(
        self, method: str, repository: str, digest: str, headers: dict[str, str] | None = None
    ) -> Call:
        url = self._session.url(f"/v2/{repository}/blobs/{digest}")
        return Call(method, url, _pulling(repository), headers or {})

    def _pages(self, path: str, scope: str, key: str) -> list[str] | None:
        """The texts under `key` of a list that may come in pages; None where there is none."""
        found: dict[str, None] = {}
        url = self._session.url(f"{path}?n={_PAGE}")
        for _ in range(_PAGES):
            answer = self._session.request(Call("GET", url, scope), {200, 404})
            if answer.status == 404:
                return None
            values: Any = answer.json().get(key) or []
            found |= dict.fromkeys(value for value in values if isinstance(value, str))
            following = self._next_page(answer)
            if following is None:
                return list(found)
            if following == url:
                break
            url = following
        raise damaged(self._session.url(path), "is a list that never ends")

    def _next_page(self, answer: Answer) -> str | None:
        match = _NEXT.search(answer.headers.get("Link", ""))
        return self._session.url(match[1], answer.url) if match else None


def _pulling(repository: str) -> str:
    return f"repository:{repository}:pull"


def _pushing(repository: str) -> str:
    return f"repository:{repository}:pull,push"
