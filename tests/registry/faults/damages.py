"""Damages that tests of the repair put, and what a database says."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterhub.manifest import FileRecord
from adapterhub_registry.store import LocalRegistry

TABLES = ("events", "bases", "versions", "manifests", "needs", "aliases", "adapters", "scores")


def contents(registry: LocalRegistry) -> dict[str, list[Any]]:
    with sqlite3.connect(registry.database.path) as connection:
        return {t: sorted(connection.execute(f"SELECT * FROM {t}"), key=repr) for t in TABLES}


def damage(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink()
        return
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    return bytes(data)


def weights(registry: LocalRegistry) -> FileRecord:
    version = registry.versions()[0]
    return version.manifest.files["adapter_model.safetensors"]


HOW: dict[str, Callable[[Path], bytes | None]] = {
    "flipped": flip,
    "short": lambda path: path.read_bytes()[:-2],
    "missing": lambda path: None,
}
