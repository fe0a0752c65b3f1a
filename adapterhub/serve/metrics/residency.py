"""Which adapters an engine holds, and what loading them cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Literal

Tier = Literal["slot", "cpu", "disk"]
"""slot: in the memory that answers (GPU or CPU); cpu: in the engine's cache, a copy away from a
slot; disk: it answered before, and has to be read again."""


class Residency:
    """Filled by an engine, from any thread. A version is named by its reference, `sql@3`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tiers: dict[str, Tier] = {}
        self._loads: Counter[str] = Counter()
        self._load_seconds: Counter[str] = Counter()
        self._evictions: Counter[str] = Counter()

    def loaded(self, version: str, seconds: float, tier: Tier = "slot") -> None:
        """A version was read from disk, which took so long."""
        with self._lock:
            self._tiers[version] = tier
            self._loads[version] += 1
            self._load_seconds[version] += seconds  # type: ignore[assignment]

    def evicted(self, version: str) -> None:
        """A version had to make room: it is on disk only."""
        with self._lock:
            self._tiers[version] = "disk"
            self._evictions[version] += 1

    def order(self, versions: Sequence[str], slots: int) -> None:
        """What an engine with so many slots has in memory, the one used longest ago first: the
        last of them are in the slots."""
        cached, in_slots = set(versions[:-slots]), set(versions[-slots:])
        with self._lock:
            for version in self._tiers:
                placed: Tier = "cpu" if version in cached else "disk"
                self._tiers[version] = "slot" if version in in_slots else placed

    def tiers(self) -> dict[str, Tier]:
        """Where each version lies."""
        with self._lock:
            return dict(self._tiers)

    def loads(self) -> dict[str, tuple[int, float]]:
        """How often each version was loaded, and the seconds of all of these."""
        with self._lock:
            return {name: (n, float(self._load_seconds[name])) for name, n in self._loads.items()}

    def evictions(self) -> dict[str, int]:
        """How often each version had to make room."""
        with self._lock:
            return dict(self._evictions)
