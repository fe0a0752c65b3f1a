"""The record of what a process did to a disk, as the shim writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Operation:
    """One line of the record, with its bytes."""

    what: str
    first: str = ""
    second: str = ""
    inode: int = 0
    offset: int = 0
    data: bytes = b""

    def continues(self, other: Operation) -> bool:
        """Whether this and the one before it are writes to the same file."""
        return self.what == other.what == "write" and self.inode == other.inode


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
