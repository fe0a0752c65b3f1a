"""What every payload must pass before it is stored."""

from __future__ import annotations

from pathlib import Path

from adapterhub.manifest import BaseRecord, Manifest


def check_payload(directory: Path, manifest: Manifest, base: BaseRecord | None) -> None:
    """Refuse (exit code 3) what may not be stored."""
