"""A progress that says nothing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any


class Quiet:
    """A `protocols.Progress` and its task."""

    def task(self, description: str, total: float | None) -> Any:
        return nullcontext(self)

    def advance(self, amount: float = 1, note: str = "") -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...
