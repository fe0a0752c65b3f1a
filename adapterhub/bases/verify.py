"""Noticing that a base changed under its name.

A base is hashed in full when it is added. Afterwards size, mtime and inode of its files are
compared, which takes well under a millisecond a file; only a difference there hashes again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterhub.bases.digests import compute_digests, identity_files
from adapterhub.bases.identity import explain_difference
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.home import adz_home
from adapterhub.manifest import BaseRecord

Stats = dict[str, list[int]]

_WORDS = {"arch": "architecture", "chat_template": "chat template"}


def verify_base(record: BaseRecord, hashed: Callable[[int], None] = lambda count: None) -> None:
    """Raise AdzError (exit code 3) when the base's files are no longer what was added.

    `hashed` is told of every piece, in bytes, where the base has to be hashed again.
    """
    directory = Path(record.path)
    if not directory.is_dir():
        raise _changed(record, f"its directory {directory} is gone")
    try:
        if _read_stats(record) == collect_stats(directory):
            return
        stats = collect_stats(directory)
        given = compute_digests(directory, hashed)
    except AdzError as error:
        raise _changed(record, str(error)) from error
    differing = explain_difference(record.digests, given)
    if differing:
        words = [_WORDS.get(part, part) for part in differing]
        raise _changed(record, f"what differs is its {' and '.join(words)}")
    write_stats(record, stats)


def write_stats(record: BaseRecord, stats: Stats) -> None:
    """Remember the files' size, mtime and inode as those of the record's digests."""
    path = _stats_path(record.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    staging.write_text(json.dumps(_keyed(record, stats)), encoding="utf-8")
    staging.replace(path)


def forget_stats(name: str) -> None:
    """Remove what `write_stats` remembers for a base."""
    _stats_path(name).unlink(missing_ok=True)


def collect_stats(directory: Path) -> Stats:
    """Size in bytes, mtime in ns and inode of every file that the digests depend on.

    Taken before hashing: a file that changes meanwhile is then hashed again next time.
    """
    result: Stats = {}
    for file in identity_files(directory):
        status = file.stat()
        name = str(file.relative_to(directory))
        result[name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return result


def _read_stats(record: BaseRecord) -> Stats | None:
    """What was remembered for exactly this record; None where it is not there or unreadable."""
    try:
        value = json.loads(_stats_path(record.name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    files: Stats | None = value.get("files") if isinstance(value, dict) else None
    return files if files is not None and value == _keyed(record, files) else None


def _keyed(record: BaseRecord, stats: Stats) -> dict[str, Any]:
    return {
        "path": record.path,
        "digests": record.digests.model_dump(mode="json"),
        "files": stats,
    }


def _stats_path(name: str) -> Path:
    # No name holds an @, so team/name cannot meet another name's file.
    return adz_home() / "bases" / "stats" / f"{name.replace('/', '@')}.json"


def _changed(record: BaseRecord, reason: str) -> AdzError:
    return AdzError(
        f"the base {record.name} changed under its name: {reason}",
        f"restore it, or add it again under another name from {record.source}",
        exit_code=EXIT_VERIFICATION,
    )
