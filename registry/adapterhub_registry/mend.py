"""Putting right what fsck found, from what is on this machine: `adz fsck --repair`.

A manifest is also in the database, and a payload's files may also be in a view; a damaged view is
deleted and made anew when it is wanted. `adapterhub.exchange.repair` brings the rest from a remote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from adapterhub.bases.digests import hash_file
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord
from adapterhub.protocols import Finding, Repaired
from adapterhub_registry import disk
from adapterhub_registry.blobs import is_intact, stage_bytes
from adapterhub_registry.rebuild import rebuild
from adapterhub_registry.storage import Storage


def mend(storage: Storage, findings: Sequence[Finding]) -> Iterator[Repaired]:
    """Repair what can be repaired without a remote; yield what was done."""
    for finding in findings:
        if finding.kind == "file" and finding.digest and _mend_blob(storage, finding.digest):
            yield Repaired(finding.subject, "put back from its other copy here")
    if any(finding.kind == "names" for finding in findings):
        # Manifests come first: a database made anew reads them.
        _put_manifests(storage)
        yield from rebuild(storage)
    for finding in findings:
        if finding.kind == "view" and finding.digest:
            _drop_view(storage, finding.digest)
            yield Repaired(finding.subject, "deleted: it is made anew when it is wanted")


def heal(storage: Storage, record: FileRecord, path: Path) -> None:
    """Store the bytes of `path` under their digest; see `protocols.Registry`."""
    with storage.staging() as staging:
        staged = staging / "blob"
        if disk.copy(path, staged) != record:
            raise AdzError(
                f"{path} is not the file {record.sha256[:19]}",
                "nothing was changed",
                exit_code=EXIT_VERIFICATION,
            )
        disk.protect(staged)
        disk.sync(staged)
        storage.blobs.publish([(staged, record.sha256)])


def _mend_blob(storage: Storage, digest: str) -> bool:
    body = _known_manifest(storage, digest)
    if body is not None:
        with storage.staging() as staging:
            path, _ = stage_bytes(body, staging)
            heal(storage, FileRecord(sha256=digest, size=len(body)), path)
        return True
    for path in storage.views.directory.glob("*/**/*"):
        if path.is_file() and not path.is_symlink() and hash_file(path) == digest:
            heal(storage, FileRecord(sha256=digest, size=path.stat().st_size), path)
            return True
    return False


def _known_manifest(storage: Storage, digest: str) -> bytes | None:
    try:
        with storage.database.reading() as connection:
            row = connection.execute(
                "SELECT body FROM manifests WHERE digest = ?", (digest,)
            ).fetchone()
    except AdzError:
        return None
    body = row["body"] if row else None
    return body if is_intact(body, digest) else None


def _put_manifests(storage: Storage) -> None:
    try:
        with storage.database.reading() as connection:
            digests = [row["digest"] for row in connection.execute("SELECT digest FROM manifests")]
    except AdzError:
        return
    for digest in digests:
        named = storage.blobs.is_named(digest.removeprefix("sha256:"))
        if named and storage.blobs.read(digest) is None:
            _mend_blob(storage, digest)


def _drop_view(storage: Storage, digest: str) -> None:
    view = storage.views.directory / digest.removeprefix("sha256:")
    trashed = storage.trash / f"views-{view.name}"
    if trashed.exists():
        disk.remove(trashed)
    disk.rename(view, trashed)
    disk.remove(trashed)
    note = view.with_suffix(".json")
    if note.exists():
        disk.remove(note)
