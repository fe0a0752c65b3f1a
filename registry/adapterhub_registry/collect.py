"""Deleting what no live version needs (`adz gc`)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from adapterhub.protocols import CollectReport
from adapterhub_registry import disk
from adapterhub_registry.database import utc_text
from adapterhub_registry.storage import Storage

_KEPT = "SELECT digest FROM versions WHERE state = 'live' OR ended > ?"
_KEPT_BLOBS = """
    SELECT digest AS blob FROM versions UNION
    SELECT n.blob FROM needs n JOIN versions v ON v.digest = n.digest
    WHERE v.state = 'live' OR v.ended > ?
"""


def collect(registry: Storage, *, dry_run: bool, grace_seconds: float) -> CollectReport:
    """Move what is unneeded to the trash under the write lock, then delete it.

    Needed are the blobs of live versions, of versions removed within the grace period, and
    every manifest: history outlives the files. What is younger than the grace period stays,
    and so does what a running process is staging, however long that takes.
    """
    cutoff = time.time() - grace_seconds
    with registry.database.changing() as change:
        blobs, recent = _unneeded_blobs(registry, change.connection, cutoff)
        views = list(_unneeded_views(registry, change.connection, cutoff))
        abandoned = [path for path in registry.ingest.iterdir() if _is_abandoned(path, cutoff)]
        size = sum(_size(path) for path in [*blobs, *views, *abandoned])
        if not dry_run:
            for path in [*blobs, *views, *abandoned]:
                disk.rename(path, registry.trash / f"{path.parent.name}-{path.name}")
            disk.sync(registry.blobs.directory)
    if not dry_run:
        for path in list(registry.trash.iterdir()):
            _remove_if_there(path)
    view_count = sum(not path.suffix for path in views)
    return CollectReport(len(blobs), view_count, size, kept={"within grace": recent})


def _unneeded_blobs(
    registry: Storage, connection: sqlite3.Connection, cutoff: float
) -> tuple[list[Path], int]:
    needed = {row["blob"] for row in connection.execute(_KEPT_BLOBS, (utc_text(cutoff),))}
    unneeded = [p for p in registry.blobs.directory.iterdir() if f"sha256:{p.name}" not in needed]
    old = [path for path in unneeded if path.stat().st_mtime < cutoff]
    return old, len(unneeded) - len(old)


def _unneeded_views(
    registry: Storage, connection: sqlite3.Connection, cutoff: float
) -> Iterator[Path]:
    rows = connection.execute(_KEPT, (utc_text(cutoff),))
    kept = {row["digest"].removeprefix("sha256:") for row in rows}
    for path in registry.views.directory.iterdir():
        if path.stem not in kept and path.stat().st_mtime < cutoff:
            yield path


def _is_abandoned(path: Path, cutoff: float) -> bool:
    with disk.lease(path) as free:
        return free and path.stat().st_mtime < cutoff


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def _remove_if_there(path: Path) -> None:
    try:
        disk.remove(path)
    except FileNotFoundError:
        # Another collection empties the same trash.
        return
