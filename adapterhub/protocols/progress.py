"""How a pipeline tells what it is doing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Task(Protocol):
    """One bar of progress."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Move on by `amount`; `note` replaces the text at the end of the bar."""


class Progress(Protocol):
    """How a pipeline tells what it is doing; the command line draws it on stderr."""

    def task(self, description: str, total: float | None) -> AbstractContextManager[Task]:
        """A bar that ends with the block. `total` is None where it is not known."""

    def note(self, message: str) -> None:
        """One line for the user."""

    def warn(self, message: str) -> None:
        """One line that the user should act on."""
