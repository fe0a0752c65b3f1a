"""What is wrong with a registry at a glance (`adz doctor`): no blob and no manifest is read."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from adapterhub.file_systems import network_file_system
from adapterhub.protocols import Problem
from adapterhub_registry import disk
from adapterhub_registry.storage import Storage

# Clocks of machines that share a registry may differ a little.
_CLOCK_SECONDS = 300
_ABANDONED_SECONDS = 86_400
_REBUILD = "move registry.sqlite3 away, and the next command rebuilds it from names.jsonl"


def diagnose(storage: Storage) -> Iterator[Problem]:
    """Yield what is wrong, each with what to do; the database is open already."""
    yield from _check_file_system(storage)
    yield from _check_access(storage)
    with storage.database.reading() as connection:
        last = connection.execute("SELECT * FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    if last is not None:
        yield from _check_journal(storage, last)
        yield from _check_clock(last)
    yield from _check_leftovers(storage)


def _check_file_system(storage: Storage) -> Iterator[Problem]:
    """It was opened there because the user asked for it."""
    kind = network_file_system(storage.home)
    if kind is not None:
        yield Problem(
            str(storage.home),
            f"it lies on a network file system ({kind}), where locks are not reliable",
            "set ADZ_HOME to a folder on a local disk and share versions with 'adz push'",
        )


def _check_access(storage: Storage) -> Iterator[Problem]:
    """Folders and files that we cannot write, or that everyone can."""
    database, journal = storage.database.path, storage.database.journal.path
    folders = [storage.root, storage.blobs.directory, storage.views.directory]
    for path in [*folders, storage.ingest, storage.trash, database, journal]:
        if not path.exists():
            continue
        mode = path.stat().st_mode
        needed = os.W_OK | os.R_OK | (os.X_OK if path.is_dir() else 0)
        name = path.relative_to(storage.root.parent).as_posix()
        if not os.access(path, needed):
            owner = f"it belongs to user {path.stat().st_uid}"
            advice = f"chown -R {os.geteuid()} {storage.root}, or set another ADZ_HOME"
            yield Problem(name, f"this user cannot write it: {owner}", advice)
        elif mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield Problem(
                name,
                "every user of this machine can change it",
                f"chmod -R o-w {storage.root}",
            )


def _check_journal(storage: Storage, last: sqlite3.Row) -> Iterator[Problem]:
    """The journal must hold the database's last event; it may be one change ahead."""
    written = {event.seq: event for event in storage.database.journal.tail()}
    event = written.get(last["seq"])
    if event is None:
        advice = "keep registry.sqlite3: it is whole; run 'adz fsck'"
        yield Problem(
            "registry/names.jsonl",
            f"the history of the database ends at event {last['seq']}, which is not in it",
            advice,
        )
    elif asdict(event) != {**dict(last), "body": json.loads(last["body"])}:
        advice = f"was one of the two restored from a backup? Run 'adz fsck', or {_REBUILD}"
        problem = f"event {last['seq']} is another one in the database"
        yield Problem("registry/names.jsonl", problem, advice)


def _check_clock(last: sqlite3.Row) -> Iterator[Problem]:
    ahead = datetime.fromisoformat(last["time"]).timestamp() - time.time()
    if ahead > _CLOCK_SECONDS:
        yield Problem(
            "clock",
            f"the last change was made {ahead / 60:.0f} minutes in the future",
            "set this machine's clock: 'adz gc' decides by it what is old",
        )


def _check_leftovers(storage: Storage) -> Iterator[Problem]:
    """What killed processes left, unless a running one holds it."""
    cutoff = time.time() - _ABANDONED_SECONDS
    left = [path for path in storage.ingest.iterdir() if _is_abandoned(path, cutoff)]
    left += [path for path in storage.trash.iterdir() if path.lstat().st_mtime < cutoff]
    if left:
        what = f"{len(left)} leftovers of killed processes in ingest and trash"
        yield Problem("registry/ingest", what, "adz gc")


def _is_abandoned(path: Path, cutoff: float) -> bool:
    with disk.lease(path) as free:
        return free and path.stat().st_mtime < cutoff
