"""Adding versions: one that was made here, or one that was received with its manifest.

The files are copied to a folder on the same file system, pass the gates while they reach the disk,
and move in under the write lock together with the names. The manifest carries the version's number,
which is certain under the lock only: it is written for the likely one, and seldom again.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseRecord, FileRecord, Manifest, payload_digest, sha256_of
from adapterhub.plugins import load_plugins
from adapterhub.reference import DERIVED, check_new_name
from adapterhub_registry import bases, disk, lookup, quotas
from adapterhub_registry.blobs import stage, stage_bytes
from adapterhub_registry.database import Change, utc_now
from adapterhub_registry.gates import check_payload
from adapterhub_registry.received import parse_manifest, require_files
from adapterhub_registry.storage import Storage

_PAYLOAD = "payload"
_ARTIFACTS = "artifacts"


def commit(
    storage: Storage, manifest: Manifest, payload: Path, artifacts: Path | None
) -> tuple[str, Manifest, BaseRecord | None]:
    """Store files as the next version of a name; return its digest and manifest, and the base
    with which it passed the gates."""
    check_new_name(manifest.name, manifest.metrics.get(DERIVED))
    with storage.staging() as staging:
        files, extra = _stage(staging, payload, artifacts)
        draft = manifest.model_copy(
            update={
                "version": 0,
                "created": utc_now(),
                "files": files,
                "artifacts": extra,
                "payload": payload_digest(files),
            }
        )
        with storage.database.reading() as connection:
            staged = _stage_numbered(staging, draft, _next_number(connection, draft.name))
        base = _admit(storage, draft, staged)
        with storage.database.changing() as change:
            return (*_add_next(change, storage, staged), base)


def receive(
    storage: Storage, body: bytes, payload: Path, artifacts: Path | None, source: str
) -> Manifest:
    """Store files under the name and number that their manifest `body` gives; return it."""
    manifest = parse_manifest(body)
    # Nobody else says what a server answers a merge with.
    check_new_name(manifest.name)
    with storage.database.reading() as connection:
        if _is_here(connection, manifest, sha256_of(body)):
            return manifest
    with storage.staging() as staging:
        files, extra = _stage(staging, payload, artifacts)
        require_files(manifest, manifest.files, files)
        require_files(manifest, manifest.artifacts, extra)
        staged = _Staged(staging, manifest, body)
        _admit(storage, manifest, staged)
        with storage.database.changing() as change:
            _add_received(change, storage, staged, source)
    return manifest


class _Staged:
    """A version's files in a staging directory, its manifest among them.

    body: the manifest's bytes. digest: theirs. blobs: every file, with its digest.
    """

    def __init__(self, directory: Path, manifest: Manifest, body: bytes) -> None:
        self.directory = directory
        self.manifest = manifest
        self.body = body
        described, self.digest = stage_bytes(body, directory)
        self.blobs = [(described, self.digest)]
        for folder, records in ((_PAYLOAD, manifest.files), (_ARTIFACTS, manifest.artifacts)):
            self.blobs += [(directory / folder / n, record.sha256) for n, record in records.items()]

    @property
    def size(self) -> int:
        """The bytes of the payload."""
        return sum(record.size for record in self.manifest.files.values())

    def sync(self) -> None:
        """Bring every file to the disk."""
        for path, _ in self.blobs:
            disk.sync(path)


def _stage(
    staging: Path, payload: Path, artifacts: Path | None
) -> tuple[dict[str, FileRecord], dict[str, FileRecord]]:
    files = stage(payload, staging / _PAYLOAD)
    return files, stage(artifacts, staging / _ARTIFACTS) if artifacts else {}


def _stage_numbered(staging: Path, draft: Manifest, number: int) -> _Staged:
    manifest = draft.model_copy(update={"version": number})
    return _Staged(staging, manifest, manifest.canonical())


def _admit(storage: Storage, manifest: Manifest, staged: _Staged) -> BaseRecord | None:
    """The gates and the plugins' say; what passes is on the disk afterwards. Returns the base
    that it was checked with."""
    # Imported late: `adz ls` must not pay for it.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        # The disk works while the gates compute.
        synced = pool.submit(staged.sync)
        with storage.database.reading() as connection:
            bases.refuse_name(connection, manifest.name)
            base = bases.of_manifest(connection, manifest)
        check_payload(staged.directory / _PAYLOAD, manifest, base)
        load_plugins().call_event("adapterhub_before_commit", manifest=manifest)
        synced.result()
    return base


def _add_next(change: Change, storage: Storage, staged: _Staged) -> tuple[str, Manifest]:
    """The blobs move in under the write lock, so `collect` cannot take one in between."""
    name = staged.manifest.name
    bases.refuse_name(change.connection, name)
    number = _next_number(change.connection, name)
    if number != staged.manifest.version:
        # Another version came first.
        staged = _stage_numbered(staged.directory, staged.manifest, number)
        staged.sync()
    quotas.check(change.connection, storage.home, name, versions=1, size=staged.size)
    storage.blobs.publish(staged.blobs)
    origin = {"digest": staged.digest}
    change.record("commit", name, version=number, body=origin, manifest=staged.body)
    return staged.digest, staged.manifest


def _next_number(connection: sqlite3.Connection, name: str) -> int:
    query = "SELECT ifnull(max(number), 0) + 1 FROM versions WHERE name = ?"
    return int(connection.execute(query, (name,)).fetchone()[0])


def _add_received(change: Change, storage: Storage, staged: _Staged, source: str) -> None:
    manifest = staged.manifest
    bases.refuse_name(change.connection, manifest.name)
    if _is_here(change.connection, manifest, staged.digest):
        return
    quotas.check(change.connection, storage.home, manifest.name, versions=1, size=staged.size)
    storage.blobs.publish(staged.blobs)
    origin = {"digest": staged.digest, "source": source}
    change.record(
        "pull", manifest.name, version=manifest.version, body=origin, manifest=staged.body
    )


def _is_here(connection: sqlite3.Connection, manifest: Manifest, digest: str) -> bool:
    """Whether that very version is live; another one of the same number is refused."""
    row = lookup.with_number(connection, manifest.name, manifest.version)
    if row is not None and row["digest"] != digest:
        raise AdzError(
            f"{manifest.name}@{manifest.version} is another version here",
            f"take it under another name: adz pull {manifest.name}@{manifest.version} --as OTHER",
            exit_code=EXIT_VERIFICATION,
        )
    return row is not None and row["state"] == "live"
