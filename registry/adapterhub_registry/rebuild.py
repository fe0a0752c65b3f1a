"""Making the journal and the database anew from what is left of them and of the manifests.

Best is a database that agrees with its own history; then the lines of the journal, each with a
checksum; then, where events are missing from both, the manifests among the blobs. The journal is
written first, in one step, then the database is moved away: the next opening makes it from the
journal. A crash in between loses nothing and leaves work for the next `adz fsck --repair`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace

from adapterhub.errors import AdzError
from adapterhub.manifest import Manifest
from adapterhub.protocols import Repaired
from adapterhub_registry import disk, tables
from adapterhub_registry.blobs import is_intact
from adapterhub_registry.database import actor
from adapterhub_registry.journal import Event
from adapterhub_registry.names import DATABASE, JOURNAL, is_whole, read_events
from adapterhub_registry.received import MAX_MANIFEST, parse_manifest
from adapterhub_registry.storage import Storage

SOURCE = "found by fsck"


def rebuild(storage: Storage) -> Iterator[Repaired]:
    """Make both anew; yield what was done, and what is lost for good."""
    database = storage.database
    existed = database.path.exists()
    with database.frozen():
        events, certain = _gather(storage)
        recovered = [] if certain else list(_recover(storage, events))
        gaps = [event.seq for event in events] != list(range(1, len(events) + 1))
        history, left_out = _applicable(storage, _placed(events, recovered))
        with disk.lock(storage.root):
            database.journal.replace(history, storage.staging)
            _set_aside(storage)
    with database.reading():
        yield Repaired(JOURNAL, f"written anew with {len(history)} events")
        old = f"; the old one is {DATABASE}.damaged" if existed else ""
        yield Repaired(DATABASE, f"made anew from {JOURNAL}{old}")
    for event in recovered:
        yield Repaired(f"{event.name}@{event.version}", "found again by its manifest")
    if recovered or gaps or left_out:
        yield Repaired(
            JOURNAL,
            "a part of the history is lost for good: see 'adz base ls' whether every base is "
            "there, and 'adz ls' and 'adz log' whether aliases point where they should, and "
            "whether a removed version is back",
        )


def _gather(storage: Storage) -> tuple[list[Event], bool]:
    """The events that are left, and whether these are certainly all that there were."""
    written = storage.database.journal.read()
    if not storage.database.path.exists():
        return written, False
    held = _held(storage)
    if is_whole(storage):
        # What the journal has beyond it is a change of a killed command, or was lost here.
        return held + [event for event in written if event.seq > len(held)], True
    merged = {event.seq: event for event in held} | {event.seq: event for event in written}
    return [merged[seq] for seq in sorted(merged)], False


def _held(storage: Storage) -> list[Event]:
    try:
        with storage.database.reading() as connection:
            return read_events(connection)
    except (AdzError, ValueError, TypeError):
        return []


def _recover(storage: Storage, events: Sequence[Event]) -> Iterator[Event]:
    """The versions that manifests among the blobs tell of and no event does."""
    known = {event.body["digest"] for event in events if "digest" in event.body}
    taken = {(event.name, event.version) for event in events if "digest" in event.body}
    found: dict[tuple[str, int], tuple[Manifest, str]] = {}
    for path in sorted(storage.blobs.directory.iterdir()):
        digest = f"sha256:{path.name}"
        manifest = None if digest in known else _manifest(storage, digest)
        if manifest is None or (manifest.name, manifest.version) in taken:
            continue
        key = (manifest.name, manifest.version)
        # Two of one number: the first one's commit was killed, and the number given again.
        if key not in found or found[key][0].created < manifest.created:
            found[key] = (manifest, digest)
    for (name, version), (manifest, digest) in sorted(found.items()):
        body = {"digest": digest, "source": SOURCE}
        yield Event(0, manifest.created, actor(), "pull", name, version, body=body)


def _placed(events: Sequence[Event], recovered: Sequence[Event]) -> list[Event]:
    """All of them, each recovered version before the first event that needs it or a later
    version of its name."""
    placed = list(events)
    for one in reversed(recovered):
        number = one.version or 0
        later = (
            index
            for index, event in enumerate(placed)
            if event.name == one.name and (event.version or 0) >= number
        )
        placed.insert(next(later, len(placed)), one)
    return placed


def _manifest(storage: Storage, digest: str) -> Manifest | None:
    with suppress(AdzError, OSError):
        path = storage.blobs.path(digest)
        if path.stat().st_size <= MAX_MANIFEST:
            body = path.read_bytes()
            return parse_manifest(body) if is_intact(body, digest) else None
    return None


def _applicable(storage: Storage, events: Sequence[Event]) -> tuple[list[Event], int]:
    """The events that can be applied one after the other, numbered anew; how many cannot."""
    kept: list[Event] = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as trial:
        trial.row_factory = sqlite3.Row
        trial.execute("PRAGMA foreign_keys = ON")
        tables.create(trial, [], storage.blobs.read)

        def apply(event: Event) -> None:
            numbered = replace(event, seq=len(kept) + 1)
            digest = event.body.get("digest")
            trial.execute("SAVEPOINT event")
            try:
                tables.apply(trial, numbered, storage.blobs.read(digest) if digest else None)
                kept.append(numbered)
            except (sqlite3.Error, ValueError, LookupError, TypeError):
                trial.execute("ROLLBACK TO event")
            trial.execute("RELEASE event")

        for event in events:
            apply(event)
        left_out = len(events) - len(kept)
        for event in [e for e in kept if e.body.get("source") == SOURCE]:
            if _was_collected(storage, trial, event):
                apply(replace(event, action="remove", body={}))
                apply(replace(event, action="collect", body={}))
    return kept, left_out


def _was_collected(storage: Storage, connection: sqlite3.Connection, event: Event) -> bool:
    """Whether a version of which only the manifest is left had been removed: no alias points at
    it, and some of its files are gone."""
    query = """
        SELECT n.blob FROM versions v JOIN needs n ON n.digest = v.digest
        WHERE v.name = ?1 AND v.number = ?2 AND v.state = 'live'
        AND NOT EXISTS (SELECT 1 FROM aliases a WHERE a.name = ?1 AND a.number = ?2)
        AND NOT EXISTS (SELECT 1 FROM splits s WHERE s.name = ?1 AND s.number = ?2)
    """
    rows = connection.execute(query, (event.name, event.version))
    return not all(storage.blobs.path(row["blob"]).is_file() for row in rows)


def _set_aside(storage: Storage) -> None:
    path = storage.database.path
    if path.exists():
        disk.rename(path, path.with_name(f"{DATABASE}.damaged"))
        # Without its log, this database would be an older one.
        disk.sync(path.parent)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            disk.remove(path.with_name(path.name + suffix))
