"""Progress that is not shown, for steps of a step that is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapterhub.protocols import Task


class Silent:
    """A `protocols.Progress` and its `protocols.Task` that say nothing."""

    @contextmanager
    def task(self, description: str, total: float | None) -> Iterator[Task]:
        """A task that is not shown."""
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Not shown."""

    def note(self, message: str) -> None:
        """Not shown."""

    def warn(self, message: str) -> None:
        """Not shown."""
