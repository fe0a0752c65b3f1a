"""What a disk may hold after a power loss, from a record of every change made to it.

Strict POSIX: bytes are safe after an fsync of their file, an entry (created, renamed, removed)
after an fsync of its directory; all else may be there, in part or not at all, in any order.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from operations import Operation

SECTOR = 512
# What lies in these means nothing until it is moved out: of it, all that was done is there.
UNFINISHED = ("ingest", "staging", "unfinished")

Written = tuple[int, bytes] | int


@dataclass(eq=False)
class Content:
    """The bytes of a file in some state; their digest is worked out once."""

    data: bytes

    @cached_property
    def digest(self) -> bytes:
        """The sha256 of the bytes."""
        return hashlib.sha256(self.data).digest()


# Path -> content; None for a directory.
State = dict[str, Content | None]


class File:
    """`pending`: what was written since the last fsync, as (offset, bytes) or a new length."""

    def __init__(self) -> None:
        self.pending: list[Written] = []
        self.safe = self.whole = Content(b"")

    def change(self, written: Written) -> None:
        """Write or cut."""
        self.pending.append(written)
        self.whole = self._apply(self.whole, [written])

    def sync(self) -> None:
        """Make safe what is there."""
        self.safe, self.pending = self.whole, []

    def with_some(self, changes: Sequence[Written]) -> Content:
        """What is safe, and some of what is not."""
        return self._apply(self.safe, changes)

    @staticmethod
    def _apply(content: Content, changes: Sequence[Written]) -> Content:
        data = bytearray(content.data)
        for change in changes:
            if isinstance(change, int):
                data = data[:change] + bytes(max(change - len(data), 0))
            else:
                offset, piece = change
                data.extend(bytes(max(offset - len(data), 0)))
                data[offset : offset + len(piece)] = piece
        return Content(bytes(data))


@dataclass(eq=False)
class Directory:
    """Entries by name: `durable` are safe, each with the number of the effect that set it;
    `current` is what a running process sees. unfinished: see `UNFINISHED`."""

    unfinished: bool = False
    durable: dict[str, tuple[int, Any]] = field(default_factory=dict)
    current: dict[str, Any] = field(default_factory=dict)


Change = tuple[Directory, str, Any]


@dataclass(eq=False)
class Effect:
    """A change of entries, all of it or none; safe when one of its directories is synced."""

    number: int
    changes: list[Change]


class World:
    """The disk while a record is played."""

    def __init__(self, root: str, inode: int) -> None:
        self.root = Directory()
        self.effects: list[Effect] = []
        self.files: list[File] = []
        self._base = root
        self._count = 0
        self._nodes: dict[int, File | Directory] = {inode: self.root}

    def play(self, operation: Operation) -> None:
        """Do one operation."""
        getattr(self, f"_{operation.what}")(operation)

    def _locate(self, path: str) -> tuple[Directory, str]:
        *folders, name = Path(path).relative_to(self._base).parts
        here = self.root
        for folder in folders:
            here = here.current[folder]
        return here, name

    def _file(self, operation: Operation) -> File:
        node = self._nodes[operation.inode]
        assert isinstance(node, File)
        return node

    def _enter(self, operation: Operation, node: File | Directory) -> None:
        self._nodes[operation.inode] = node
        directory, name = self._locate(operation.first)
        if isinstance(node, Directory):
            node.unfinished = name in UNFINISHED
        directory.current[name] = node
        self._changed([(directory, name, node)])

    def _changed(self, changes: list[Change]) -> None:
        self._count += 1
        _make_safe([change for change in changes if change[0].unfinished], self._count)
        doubtful = [change for change in changes if not change[0].unfinished]
        if doubtful:
            self.effects.append(Effect(self._count, doubtful))

    def _create(self, operation: Operation) -> None:
        node = File()
        self.files.append(node)
        self._enter(operation, node)

    def _mkdir(self, operation: Operation) -> None:
        self._enter(operation, Directory())

    def _write(self, operation: Operation) -> None:
        self._file(operation).change((operation.offset, operation.data))

    def _truncate(self, operation: Operation) -> None:
        self._file(operation).change(operation.offset)

    def _rename(self, operation: Operation) -> None:
        source, old = self._locate(operation.first)
        target, new = self._locate(operation.second)
        node = source.current.pop(old)
        target.current[new] = node
        self._changed([(source, old, None), (target, new, node)])

    def _link(self, operation: Operation) -> None:
        source, old = self._locate(operation.first)
        target, new = self._locate(operation.second)
        target.current[new] = source.current[old]
        self._changed([(target, new, source.current[old])])

    def _unlink(self, operation: Operation) -> None:
        directory, name = self._locate(operation.first)
        node = directory.current.pop(name)
        self._changed([(directory, name, None)])
        if directory.unfinished:
            gone = {id(node)}
            self.effects = [e for e in self.effects if {id(d) for d, _, _ in e.changes} != gone]

    def _sync(self, operation: Operation) -> None:
        node = self._nodes[operation.inode]
        if isinstance(node, File):
            node.sync()
            return
        safe = [e for e in self.effects if any(d is node for d, _, _ in e.changes)]
        self.effects = [effect for effect in self.effects if effect not in safe]
        for effect in safe:
            _make_safe(effect.changes, effect.number)

    def everything(self) -> State:
        """What is there if nothing is lost: a machine that stops between two operations."""
        return self._state({}, {id(effect) for effect in self.effects})

    def states(self, chance: random.Random, count: int) -> Iterator[State]:
        """What may be there now. All of what is not safe, nothing of it, each part alone, all but
        each part, and `count` random choices."""
        reachable = self._reachable()
        files = [file for file in self.files if file.pending and id(file) in reachable]
        parts, beside = [id(file) for file in files], set()
        for effect in self.effects:
            if any(id(directory) in reachable for directory, _, _ in effect.changes):
                parts.append(id(effect))
            else:
                beside.add(id(effect))
        everything = set(parts)
        choices = [everything, set()]
        choices += [everything - {part} for part in parts]
        choices += [{part} for part in parts]
        for kept in choices:
            data = {file: file.whole if id(file) in kept else file.safe for file in files}
            yield self._state(data, kept | beside)
        for _ in range(count):
            share = chance.choice((0.1, 0.5, 0.9))
            kept = {part for part in parts if chance.random() < share}
            data = {file: file.with_some(_torn(file, chance)) for file in files}
            yield self._state(data, kept | beside)

    def _reachable(self) -> set[int]:
        """The files and directories that can be found from the root, whatever is lost."""
        entered: dict[int, list[Any]] = {}
        for effect in self.effects:
            for directory, _, node in effect.changes:
                entered.setdefault(id(directory), []).append(node)
        found, waiting = {id(self.root)}, [self.root]
        while waiting:
            here = waiting.pop()
            nodes = [node for _, node in here.durable.values()] + entered.get(id(here), [])
            for node in nodes:
                if node is not None and id(node) not in found:
                    found.add(id(node))
                    if isinstance(node, Directory) and not node.unfinished:
                        waiting.append(node)
        return found

    def _state(self, data: dict[File, Content], kept: set[int]) -> State:
        entries: dict[int, dict[str, tuple[int, Any]]] = {}
        for effect in self.effects:
            if id(effect) in kept:
                for directory, name, node in effect.changes:
                    mine = entries.setdefault(id(directory), dict(directory.durable))
                    _set(mine, name, node, effect.number)
        found: State = {}

        def walk(directory: Directory, path: str) -> None:
            for name, (_, node) in entries.get(id(directory), directory.durable).items():
                if isinstance(node, Directory):
                    found[f"{path}{name}/"] = None
                    walk(node, f"{path}{name}/")
                elif node is not None and not name.endswith("-shm"):
                    # SQLite makes its shared memory anew when nobody has it open.
                    found[path + name] = data.get(node, node.whole)

        walk(self.root, "")
        return found


def _make_safe(changes: Sequence[Change], number: int) -> None:
    for directory, name, node in changes:
        _set(directory.durable, name, node, number)


def _set(entries: dict[str, tuple[int, Any]], name: str, node: Any, number: int) -> None:
    # What is newer and safe does not go back to what is older.
    if entries.get(name, (0, None))[0] < number:
        entries[name] = (number, node)


def _torn(file: File, chance: random.Random) -> list[Written]:
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
