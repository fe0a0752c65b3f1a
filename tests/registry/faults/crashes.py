"""Every state that a power loss may leave of a recorded script, and what has to be there then."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operations import Operation
from power import UNFINISHED, State, World

# A note of the record that is nothing which was acknowledged.
LEFT_OUT = "left out"


@dataclass(frozen=True)
class Crash:
    """before: what was last acknowledged. after: what would have been next."""

    state: State
    before: list[Any]
    after: list[Any]


def crashes(
    operations: list[Operation], root: Path, inode: int, chance: random.Random, count: int
) -> Iterator[Crash]:
    """Every state of every prefix, once each. What is lost and torn within a run of writes to one
    file is chosen at its end, where all of them are still unsafe. Prefixes before the first call
    left out, in a record that has one, are passed over."""
    world, seen = World(str(root), inode), set()
    notes = [json.loads(o.data) if o.what == "note" else None for o in operations]
    known = [note for note in notes if note and note[0] != LEFT_OUT]
    waiting = has_gap(operations)
    acknowledged = 0
    for operation, note, following in zip(operations, notes, [*operations[1:], None], strict=True):
        if note is None:
            world.play(operation)
        elif note[0] == LEFT_OUT:
            waiting = False
        else:
            acknowledged += 1
        if waiting:
            continue
        before = known[max(acknowledged - 1, 0)]
        after = known[min(acknowledged, len(known) - 1)]
        within = following is not None and following.continues(operation)
        for state in [world.everything()] if within else world.states(chance, count):
            key = (acknowledged, fingerprint(state))
            if key not in seen:
                seen.add(key)
                yield Crash(state, before, after)


def has_gap(operations: list[Operation]) -> bool:
    """Whether a call was left out in a record."""
    gap = json.dumps([LEFT_OUT, None]).encode()
    return any(operation.data == gap for operation in operations if operation.what == "note")


def without_syncs(operations: list[Operation], ending: str) -> list[Operation]:
    """The record of a process that never syncs the files whose paths end so."""
    files, left = set(), []
    for operation in operations:
        if operation.what == "create":
            (files.add if operation.first.endswith(ending) else files.discard)(operation.inode)
        if operation.what != "sync" or operation.inode not in files:
            left.append(operation)
    return left


def part(state: State, name: str) -> State:
    """What lies below one folder."""
    return {path: content for path, content in state.items() if path.startswith(f"{name}/")}


def fingerprint(state: State) -> bytes:
    """Equal for states that differ in nothing but unfinished work."""
    digest = hashlib.sha256()
    for path, content in sorted(state.items(), key=lambda item: item[0]):
        if not any(f"/{folder}/" in path for folder in UNFINISHED):
            digest.update(path.encode() + b"\0" + (content.digest if content else b""))
    return digest.digest()


def write_state(state: State, folder: Path) -> None:
    """Put a state on a real disk."""
    folder.mkdir()
    for path, content in state.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content.data)
