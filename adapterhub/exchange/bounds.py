"""How much a remote may send, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one transfer.

    version_bytes: all files of a version together. manifest_bytes, files: of one version.
    tries: how often in a row a file's bytes may stop coming. slowest: bytes per second, below
    which they count as stopped, measured over `patience` seconds. pause: seconds before the
    second try, doubled each time. workers: files at once.
    """

    version_bytes: int = 4 << 30
    manifest_bytes: int = 1 << 20
    files: int = 64
    tries: int = 5
    slowest: float = 1024
    patience: float = 30
    pause: float = 0.5
    workers: int = 4
