"""Adding versions: one that was made here, or one that was received with its manifest.

The files are copied to a folder on the same file system, pass the gates, reach the disk, and move
in under the write lock together with the names.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord, Manifest, payload_digest, sha256_of
from adapterhub.plugins import load_plugins
from adapterhub.reference import check_name
from adapterhub_registry import bases, disk, lookup, quotas
from adapterhub_registry.blobs import stage
from adapterhub_registry.database import Change, utc_now
from adapterhub_registry.gates import check_payload
from adapterhub_registry.received import parse_manifest, require_files
from adapterhub_registry.storage import Storage

_PAYLOAD = "payload"
_ARTIFACTS = "artifacts"


def commit(
    storage: Storage, manifest: Manifest, payload: Path, artifacts: Path | None
) -> tuple[str, Manifest]:
    """Store files as the next version of a name; return its digest and manifest."""
    check_name(manifest.name)
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
        _admit(storage, draft, staging)
        with storage.database.changing() as change:
            return _add_next(change, storage, draft, staging)


def receive(
    storage: Storage, body: bytes, payload: Path, artifacts: Path | None, source: str
) -> Manifest:
    """Store files under the name and number that their manifest `body` gives; return it."""
    manifest = parse_manifest(body)
    with storage.database.reading() as connection:
        if _is_here(connection, manifest, sha256_of(body)):
            return manifest
    with storage.staging() as staging:
        files, extra = _stage(staging, payload, artifacts)
        require_files(manifest, manifest.files, files)
        require_files(manifest, manifest.artifacts, extra)
        _admit(storage, manifest, staging)
        with storage.database.changing() as change:
            _add_received(change, storage, body, manifest, staging, source)
    return manifest


def _stage(
    staging: Path, payload: Path, artifacts: Path | None
) -> tuple[dict[str, FileRecord], dict[str, FileRecord]]:
    files = stage(payload, staging / _PAYLOAD)
    return files, stage(artifacts, staging / _ARTIFACTS) if artifacts else {}


def _admit(storage: Storage, manifest: Manifest, staging: Path) -> None:
    """The gates and the plugins' say; what passes is on the disk afterwards."""
    with storage.database.reading() as connection:
        bases.refuse_name(connection, manifest.name)
        base = bases.of_manifest(connection, manifest)
    check_payload(staging / _PAYLOAD, manifest, base)
    load_plugins().call_event("adapterhub_before_commit", manifest=manifest)
    # Last, since the disk has been writing since the files were copied.
    for path, _ in _staged(staging, manifest):
        disk.sync(path)


def _add_next(
    change: Change, storage: Storage, draft: Manifest, staging: Path
) -> tuple[str, Manifest]:
    """The blobs move in under the write lock, so `collect` cannot take one in between."""
    name = draft.name
    bases.refuse_name(change.connection, name)
    number = change.connection.execute(
        "SELECT ifnull(max(number), 0) + 1 FROM versions WHERE name = ?", (name,)
    ).fetchone()[0]
    manifest = draft.model_copy(update={"version": number})
    quotas.check(change.connection, storage.home, name, versions=1, size=_size(manifest))
    storage.blobs.publish(_staged(staging, manifest))
    body = manifest.canonical()
    digest = storage.blobs.put(body, staging)
    change.record("commit", name, version=number, body={"digest": digest}, manifest=body)
    return digest, manifest


def _add_received(
    change: Change, storage: Storage, body: bytes, manifest: Manifest, staging: Path, source: str
) -> None:
    name = manifest.name
    bases.refuse_name(change.connection, name)
    if _is_here(change.connection, manifest, sha256_of(body)):
        return
    quotas.check(change.connection, storage.home, name, versions=1, size=_size(manifest))
    storage.blobs.publish(_staged(staging, manifest))
    digest = storage.blobs.put(body, staging)
    origin = {"digest": digest, "source": source}
    change.record("pull", name, version=manifest.version, body=origin, manifest=body)


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


def _size(manifest: Manifest) -> int:
    return sum(record.size for record in manifest.files.values())


def _staged(staging: Path, manifest: Manifest) -> Iterator[tuple[Path, str]]:
    for folder, records in ((_PAYLOAD, manifest.files), (_ARTIFACTS, manifest.artifacts)):
        for name, record in records.items():
            yield staging / folder / name, record.sha256
