"""How far a check came, so that `adz fsck --resume` goes on from there."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from adapterhub.manifest import canonical_json
from adapterhub_registry import disk
from adapterhub_registry.storage import Storage

_SECONDS = 5.0


class Mark:
    """The note `registry/fsck.json`, kept while a check runs and deleted at its end.

    It is written every few seconds and when the check is interrupted. Losing it costs time only,
    so nothing waits for the disk. keep: whether to write it at all.
    """

    def __init__(self, storage: Storage, share: tuple[int, int], *, keep: bool) -> None:
        self._storage = storage
        self._path = storage.root / "fsck.json"
        self._share = list(share)
        self._keep = keep
        self._reached = ""
        self._damaged: list[str] = []
        self._written = time.monotonic()

    def left(self, digests: list[str]) -> list[str]:
        """Those of the sorted `digests` that the last check of this share did not come to, and
        those that it found damaged."""
        note = self._read()
        if note.get("share") != self._share:
            return digests
        self._reached = str(note.get("reached", ""))
        again = set(note.get("damaged", []))
        return [d for d in digests if d > self._reached or d in again]

    def passed(self, digest: str, damaged: bool) -> None:
        """`digest` is verified."""
        self._reached = max(self._reached, digest)
        self._damaged += [digest] if damaged else []
        if time.monotonic() - self._written > _SECONDS:
            self._write()

    def __enter__(self) -> Mark:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._write()
        elif self._keep:
            with suppress(OSError):
                disk.remove(self._path)

    def _read(self) -> dict[str, Any]:
        try:
            note = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def _write(self) -> None:
        self._written = time.monotonic()
        if not self._keep:
            return
        note = {"share": self._share, "reached": self._reached, "damaged": self._damaged}
        # A registry that cannot be written to can still be verified.
        with suppress(OSError), self._storage.staging() as staging:
            disk.write(staging / "note", canonical_json(note))
            disk.rename(staging / "note", self._path)
