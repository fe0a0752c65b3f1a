"""The append-only history of names, from which the database is rebuilt when it is lost.

Each line of `names.jsonl` is `{"event": ..., "left": ..., "sha256": ...}` and is on the disk
before the change that it describes is acknowledged. `left` says how many lines of the same change
follow, and is left out for none. Lines may be there without their change (the process was killed
between the two); the next change then takes the same `seq`, so a line supersedes those above it
with its `seq` or a higher one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapterhub.manifest import canonical_json, sha256_of
from adapterhub_registry import disk


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the registry. `seq` counts 1, 2, 3, ...; `time` is UTC, ISO 8601.

    action: a `LogEntry` action, `attest`, `add-base` or `remove-base`. body: what the action
    needs beyond the names: a version's digest, a base's record, an attestation.
    """

    seq: int
    time: str
    actor: str
    action: str
    name: str
    version: int | None = None
    alias: str | None = None
    previous: int | None = None
    body: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The file `names.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Begin a registry: from now on a missing journal is a lost one.

        SQLite brings the directory's entries to the disk when it makes its log, after this.
        """
        disk.append(self.path, b"")

    def append(self, events: Iterable[Event]) -> None:
        """Add events and wait until they are on the disk. Only the writer may call it."""
        # A killed writer may have left half a line; a line break keeps it apart from ours.
        lines = [_line(event, left) for left, event in enumerate(reversed(list(events)))]
        disk.append(self.path, b"".join([self._break(), *reversed(lines)]))
        disk.sync(self.path)

    def size(self) -> int:
        """Bytes, to `cut` back to."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Take back what was appended since it had `size` bytes: that change did not happen. Only
        the writer may call it."""
        if self.size() > size:
            disk.truncate(self.path, size)

    def read(self) -> list[Event]:
        """The events in order. Lines that a crash or a bad disk damaged are left out, and so is
        the last change where its end is not there; `fsck` finds those that are missed."""
        if not self.path.exists():
            return []
        found: list[Event] = []
        complete = 0
        with self.path.open("rb") as file:
            for line in file:
                event, left = _parse(line)
                if event is None:
                    continue
                while found and found[-1].seq >= event.seq:
                    found.pop()
                # What another change follows was completed, even if its last line is damaged.
                complete = len(found) + 1 if left == 0 else min(complete, len(found))
                found.append(event)
        return found[:complete]

    def tail(self, size: int = 2**20) -> list[Event]:
        """The intact events in the last `size` bytes: quick, and enough to see where it ends."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            start = max(file.seek(0, 2) - size, 0)
            file.seek(start)
            if start:
                file.readline()
            return [event for line in file if (event := _parse(line)[0]) is not None]

    def replace(
        self, events: Sequence[Event], staging: Callable[[], AbstractContextManager[Path]]
    ) -> None:
        """Put other events in place of all, in one step. staging: gives a fresh directory."""
        with staging() as folder:
            disk.write(folder / "journal", b"".join(_line(event, 0) for event in events))
            disk.sync(folder / "journal")
            disk.rename(folder / "journal", self.path)
        disk.sync(self.path.parent)

    def _break(self) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - 1, 0))
            return b"" if file.read(1) in (b"\n", b"") else b"\n"


def _line(event: Event, left: int) -> bytes:
    values: dict[str, Any] = {"event": asdict(event)} | ({"left": left} if left else {})
    checked = values if left else values["event"]
    return canonical_json(values | {"sha256": sha256_of(canonical_json(checked))}) + b"\n"


def _parse(line: bytes) -> tuple[Event | None, int]:
    try:
        value = json.loads(line)
        event, left = Event(**value["event"]), value.get("left", 0)
        checked = {k: v for k, v in value.items() if k != "sha256"} if left else value["event"]
        # Bytes that mean the same but are not what was written were damaged, too.
        intact = value["sha256"] == sha256_of(canonical_json(checked))
        intact = intact and canonical_json(value) == line.rstrip(b"\n")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, 0
    return (event, left) if intact else (None, 0)
