"""The append-only history of names, from which the database is rebuilt when it is lost.

Each line of `names.jsonl` is `{"sha256": ..., "event": ...}` and is on the disk before the
change that it describes is acknowledged. A line may be there without its change (the process
was killed between the two); the next change then takes the same `seq`, so of several lines
with one `seq` the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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

    def append(self, events: Iterable[Event]) -> None:
        """Add events and wait until they are on the disk. Only the writer may call it."""
        created = not self.path.exists()
        # A killed writer may have left half a line; a line break keeps it apart from ours.
        disk.append(self.path, b"".join([self._break(), *map(_line, events)]))
        disk.sync(self.path)
        if created:
            disk.sync(self.path.parent)

    def read(self) -> list[Event]:
        """The events in order. Lines that a crash or a bad disk damaged are left out; `fsck`
        finds those that are missed."""
        if not self.path.exists():
            return []
        found: dict[int, Event] = {}
        with self.path.open("rb") as file:
            for line in file:
                event = _parse(line)
                if event is not None:
                    found[event.seq] = event
        return [found[seq] for seq in sorted(found)]

    def _break(self) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - 1, 0))
            return b"" if file.read(1) in (b"\n", b"") else b"\n"


def _line(event: Event) -> bytes:
    values = asdict(event)
    return canonical_json({"sha256": sha256_of(canonical_json(values)), "event": values}) + b"\n"


def _parse(line: bytes) -> Event | None:
    try:
        value = json.loads(line)
        event = Event(**value["event"])
    except (ValueError, KeyError, TypeError):
        return None
    return event if value["sha256"] == sha256_of(canonical_json(value["event"])) else None
