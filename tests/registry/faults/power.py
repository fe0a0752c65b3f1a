"""What a disk may hold after a power loss, from a record of every change made to it.

Strict POSIX: bytes are safe after an fsync of their file, an entry (created, renamed, removed)
after an fsync of its directory; all else may be there, in part or not at all, in any order.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512


@dataclass(eq=False)
class File:
    """`pending`: what was written since the last fsync, as (offset, bytes) or a new length."""

    durable: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)

    def content(self, changes: Sequence[tuple[int, bytes] | int]) -> bytes:
        data = bytearray(self.durable)
        for change in changes:
            if isinstance(change, int):
                data = data[:change] + bytes(max(change - len(data), 0))
            else:
                offset, piece = change
                data.extend(bytes(max(offset - len(data), 0)))
                data[offset : offset + len(piece)] = piece
        return bytes(data)


@dataclass(eq=False)
class Directory:
    """Entries by name: `durable` are safe, each with the number of the effect that set it;
    `current` is what a running process sees."""

    durable: dict[str, tuple[int, Any]] = field(default_factory=dict)
    current: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Effect:
    """A change of entries, all of it or none; safe when one of its directories is synced."""

    number: int
    changes: list[tuple[Directory, str, Any]]


@dataclass(frozen=True)
class Operation:
    """One line of the record, with its bytes."""

    what: str
    first: str = ""
    second: str = ""
    inode: int = 0
    offset: int = 0
    data: bytes = b""


def read_record(path: Path) -> list[Operation]:
    """Parse what the shim wrote."""
    operations = []
    with path.open("rb") as file:
        while line := file.readline():
            what, *fields = line.decode().rstrip("\n").split("\t")
            data = file.read(int(fields[-1]))
            if what == "note":
                operations.append(Operation(what, data=data))
            else:
                first, second, inode, offset, _ = fields
                operations.append(Operation(what, first, second, int(inode), int(offset), data))
    return operations


class World:
    """The disk while a record is played."""

    def __init__(self, root: str) -> None:
        self.root = Directory()
        self.effects: list[Effect] = []
        self.files: list[File] = []
        self._base = root
        self._count = 0
        self._nodes: dict[int, File | Directory] = {}

    def play(self, operation: Operation, root_inode: int) -> None:
        """Do one operation."""
        self._nodes.setdefault(root_inode, self.root)
        getattr(self, f"_{operation.what}")(operation)

    def _locate(self, path: str) -> tuple[Directory, str]:
        *folders, name = Path(path).relative_to(self._base).parts
        here = self.root
        for folder in folders:
            here = here.current[folder]
        return here, name

    def _enter(self, operation: Operation, node: File | Directory) -> None:
        self._nodes[operation.inode] = node
        directory, name = self._locate(operation.first)
        directory.current[name] = node
        self._changed([(directory, name, node)])

    def _changed(self, changes: list[tuple[Directory, str, Any]]) -> None:
        self._count += 1
        self.effects.append(Effect(self._count, changes))

    def _create(self, operation: Operation) -> None:
        node = File()
        self.files.append(node)
        self._enter(operation, node)

    def _mkdir(self, operation: Operation) -> None:
        self._enter(operation, Directory())

    def _write(self, operation: Operation) -> None:
        node = self._nodes[operation.inode]
        assert isinstance(node, File)
        node.pending.append((operation.offset, operation.data))

    def _truncate(self, operation: Operation) -> None:
        node = self._nodes[operation.inode]
        assert isinstance(node, File)
        node.pending.append(operation.offset)

    def _rename(self, operation: Operation) -> None:
        source, old = self._locate(operation.first)
        target, new = self._locate(operation.second)
        node = source.current.pop(old)
        target.current[new] = node
        self._changed([(source, old, None), (target, new, node)])

    def _unlink(self, operation: Operation) -> None:
        directory, name = self._locate(operation.first)
        directory.current.pop(name)
        self._changed([(directory, name, None)])

    def _sync(self, operation: Operation) -> None:
        node = self._nodes[operation.inode]
        if isinstance(node, File):
            node.durable, node.pending = node.content(node.pending), []
            return
        safe = [e for e in self.effects if any(d is node for d, _, _ in e.changes)]
        self.effects = [effect for effect in self.effects if effect not in safe]
        for effect in safe:
            for directory, name, entry in effect.changes:
                _set(directory.durable, name, entry, effect.number)

    def states(self, chance: random.Random, count: int) -> Iterator[dict[str, bytes]]:
        """What may be there now: path -> bytes. All of what is not safe, nothing of it, each
        part alone, all but each part, and `count` random choices."""
        effects, files = self.effects, self._unsafe_files()
        parts = [id(part) for part in [*effects, *files]]
        everything = set(parts)
        choices = [everything, set()]
        choices += [everything - {part} for part in parts]
        choices += [{part} for part in parts]
        for kept in choices:
            yield self._state(effects, {f: f.pending if id(f) in kept else [] for f in files}, kept)
        for _ in range(count):
            share = chance.choice((0.1, 0.5, 0.9))
            kept = {part for part in parts if chance.random() < share}
            yield self._state(effects, {f: _torn(f, chance) for f in files}, kept)

    def _unsafe_files(self) -> list[File]:
        reachable = set(map(id, _files_below(self.root)))
        for effect in self.effects:
            for _, _, node in effect.changes:
                if isinstance(node, File):
                    reachable.add(id(node))
                elif isinstance(node, Directory):
                    reachable |= set(map(id, _files_below(node)))
        return [file for file in self.files if file.pending and id(file) in reachable]

    def _state(
        self, effects: list[Effect], data: dict[File, list[Any]], kept: set[int]
    ) -> dict[str, bytes]:
        entries: dict[int, dict[str, tuple[int, Any]]] = {}
        for effect in effects:
            if id(effect) in kept:
                for directory, name, node in effect.changes:
                    mine = entries.setdefault(id(directory), dict(directory.durable))
                    _set(mine, name, node, effect.number)
        found: dict[str, bytes] = {}

        def walk(directory: Directory, path: str) -> None:
            found[path + "/"] = b""
            for name, (_, node) in entries.get(id(directory), directory.durable).items():
                if node is None:
                    continue
                if isinstance(node, Directory):
                    walk(node, f"{path}/{name}")
                elif not name.endswith("-shm"):
                    # SQLite makes its shared memory anew when nobody has it open.
                    found[f"{path}/{name}"] = node.content(data.get(node, node.pending))

        walk(self.root, "")
        return found


def _files_below(directory: Directory) -> Iterator[File]:
    for _, node in directory.durable.values():
        if isinstance(node, Directory):
            yield from _files_below(node)
        elif node is not None:
            yield node


def _set(entries: dict[str, tuple[int, Any]], name: str, node: Any, number: int) -> None:
    # What is newer and safe does not go back to what is older.
    if entries.get(name, (0, None))[0] < number:
        entries[name] = (number, node)


def _torn(file: File, chance: random.Random) -> list[Any]:
    """A part of what was written: none, all, up to a sector of one of the writes, or only the
    new length."""
    how = chance.choice(("none", "all", "torn", "length", "some"))
    if how == "none":
        return []
    if how == "some":
        return [change for change in file.pending if chance.random() < 0.5]
    if how == "length":
        return [c if isinstance(c, int) else (c[0], bytes(len(c[1]))) for c in file.pending]
    if how == "all":
        return list(file.pending)
    upto = chance.randrange(len(file.pending))
    last = file.pending[upto]
    if not isinstance(last, int):
        last = (last[0], last[1][: chance.randrange(len(last[1]) + 1) // SECTOR * SECTOR])
    return [*file.pending[:upto], last]


def fingerprint(state: dict[str, bytes]) -> bytes:
    """Equal for states that differ in nothing but unfinished work."""
    digest = hashlib.sha256()
    for path, data in sorted(state.items()):
        if "/ingest/" not in path:
            digest.update(path.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.digest()


def write_state(state: dict[str, bytes], folder: Path) -> None:
    """Put a state on a real disk."""
    for path, data in state.items():
        target = folder / path.lstrip("/")
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.write_bytes(data)


def crashes(
    operations: list[Operation], root: Path, root_inode: int, chance: random.Random, count: int
) -> Iterator[tuple[dict[str, bytes], Any, Any]]:
    """Every state of every prefix, once each, with what was last acknowledged before it and what
    would have been next. Prefixes that end within a run of writes to one file are left out: the
    torn states of the whole run cover them. So are those before the first call left out."""
    world, seen = World(str(root)), set()
    notes = [json.loads(o.data) if o.what == "note" else None for o in operations]
    known = [note for note in notes if note and note[0] != "left out"]
    waiting = ["left out", None] in notes
    acknowledged = 0
    for position, (operation, note) in enumerate(zip(operations, notes, strict=True)):
        if note is None:
            world.play(operation, root_inode)
        elif note[0] == "left out":
            waiting = False
        else:
            acknowledged += 1
        following = operations[position + 1] if position + 1 < len(operations) else None
        if waiting or (following and _one_file_goes_on(operation, following)):
            continue
        before = known[max(acknowledged - 1, 0)]
        after = known[min(acknowledged, len(known) - 1)]
        for state in world.states(chance, count):
            key = (acknowledged, fingerprint(state))
            if key not in seen:
                seen.add(key)
                yield state, before, after


def _one_file_goes_on(operation: Operation, following: Operation) -> bool:
    return operation.what == following.what == "write" and operation.inode == following.inode
