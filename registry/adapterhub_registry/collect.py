"""Deleting what no version needs any more (`adz gc`)."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from adapterhub.protocols import CollectReport
from adapterhub_registry import disk
from adapterhub_registry.database import utc_now, utc_text
from adapterhub_registry.storage import Storage

# Manifests outlive the files: the history can still be read, and a rebuild knows every number.
_NEEDED = """
    SELECT digest AS blob FROM versions UNION
    SELECT n.blob FROM needs n JOIN versions v ON v.digest = n.digest
    WHERE v.state IN ('live', 'removed')
"""
_REMOVED = """
    SELECT name, number, digest, ended > :cutoff AS recent, EXISTS (
        SELECT 1 FROM leases l WHERE l.digest = v.digest AND l.until > :now
    ) AS leased
    FROM versions v WHERE state = 'removed' AND name GLOB :names ORDER BY name, number
"""


@dataclass(slots=True)
class _Found:
    """What is not needed, and how much of it has to stay for now."""

    blobs: list[Path] = field(default_factory=list)
    views: list[Path] = field(default_factory=list)
    staged: list[Path] = field(default_factory=list)
    young: int = 0
    in_flight: int = 0

    def paths(self) -> list[Path]:
        return [*self.blobs, *self.views, *self.staged]


def collect(
    storage: Storage,
    *,
    dry_run: bool,
    grace_seconds: float,
    retention_seconds: float,
    names: str,
) -> CollectReport:
    """Give up removed versions whose retention is over, then delete what nothing needs.

    A removed version that is leased stays; so does what is younger than the grace period, and
    what a running process is staging, however long that takes.
    """
    now = time.time()
    with storage.database.changing() as change:
        cutoff = utc_text(now - retention_seconds)
        arguments = {"cutoff": cutoff, "now": utc_now(), "names": names}
        removed = change.connection.execute(_REMOVED, arguments).fetchall()
        expired = [row for row in removed if not row["recent"] and not row["leased"]]
        if not dry_run:
            for row in expired:
                change.record("collect", row["name"], version=row["number"])
    # In a transaction of its own: a version is given up before the first of its files goes.
    with storage.database.changing() as change:
        given_up = {row["digest"] for row in expired}
        found = _unneeded(storage, change.connection, given_up, now - grace_seconds)
        size = sum(_size(path) for path in found.paths())
        if not dry_run:
            _move_to_trash(storage, found)
    if not dry_run:
        _empty_trash(storage)
    leased = sum(row["leased"] for row in removed)
    return CollectReport(
        versions=len(expired),
        blobs=len(found.blobs),
        views=sum(not path.suffix for path in found.views),
        size=size,
        kept={
            "leased": leased,
            "restorable": len(removed) - len(expired) - leased,
            "young": found.young,
            "in flight": found.in_flight,
        },
    )


def _unneeded(
    storage: Storage, connection: sqlite3.Connection, given_up: set[str], cutoff: float
) -> _Found:
    """given_up: versions that count as collected, also where a dry run did not record it."""
    needed = _needed(connection, given_up)
    found = _Found()
    for path in storage.blobs.directory.iterdir():
        if f"sha256:{path.name}" not in needed:
            _sort(path, cutoff, found.blobs, found)
    rows = connection.execute("SELECT digest FROM versions WHERE state IN ('live', 'removed')")
    kept = {row["digest"].removeprefix("sha256:") for row in rows if row["digest"] not in given_up}
    for path in storage.views.directory.iterdir():
        if path.stem not in kept:
            _sort(path, cutoff, found.views, found)
    for path in storage.ingest.iterdir():
        with disk.lease(path) as free:
            if free:
                _sort(path, cutoff, found.staged, found)
            else:
                found.in_flight += 1
    return found


def _needed(connection: sqlite3.Connection, given_up: set[str]) -> set[str]:
    needed = {row["blob"] for row in connection.execute(_NEEDED)}
    if not given_up:
        return needed
    rows = connection.execute(
        "SELECT n.digest, n.blob FROM needs n JOIN versions v ON v.digest = n.digest"
        " WHERE v.state IN ('live', 'removed')"
    )
    still = {row["blob"] for row in rows if row["digest"] not in given_up}
    manifests = {row["digest"] for row in connection.execute("SELECT digest FROM versions")}
    return still | manifests


def _sort(path: Path, cutoff: float, old: list[Path], found: _Found) -> None:
    # Another collection, or a commit that ends, may take it meanwhile.
    with suppress(FileNotFoundError):
        if path.stat().st_mtime < cutoff:
            old.append(path)
        else:
            found.young += 1


def _move_to_trash(storage: Storage, found: _Found) -> None:
    for path in [*found.blobs, *found.views]:
        disk.rename(path, _place_in_trash(storage, path))
    if found.views:
        # Else a view may be back after a power loss, but without its files.
        disk.sync(storage.views.directory)
    for path in found.staged:
        # It may have been made a moment ago, and be held only now.
        with disk.lease(path) as free:
            if free:
                disk.rename(path, _place_in_trash(storage, path))


def _place_in_trash(storage: Storage, path: Path) -> Path:
    return storage.trash / f"{path.parent.name}-{path.name}.{uuid.uuid4().hex}"


def _empty_trash(storage: Storage) -> None:
    """Delete what lies in the trash, a killed collection's leavings too. What is needed after
    all goes back: a registry that was written to without its lock must not lose a file."""
    with storage.database.changing() as change:
        needed = _needed(change.connection, set())
        for digest, path in _blobs_in_trash(storage):
            if digest in needed and not storage.blobs.path(digest).exists():
                disk.rename(path, storage.blobs.path(digest))
        rubbish = list(storage.trash.iterdir())
    for path in rubbish:
        # Another collection may empty the same trash.
        with suppress(FileNotFoundError):
            disk.remove(path)


def _blobs_in_trash(storage: Storage) -> Iterator[tuple[str, Path]]:
    for path in storage.trash.glob(f"{storage.blobs.directory.name}-*"):
        yield f"sha256:{path.name.partition('-')[2].partition('.')[0]}", path


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size
