"""Putting a rendered distribution on the disk, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from adapterhub.errors import usage_error


def write(rendered: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the files below a new `folder` and return their paths. Raises a usage error where
    the folder exists, or the one above it does not."""
    if folder.exists():
        raise usage_error(f"{folder} exists", "choose another name, or another folder with --out")
    if not folder.absolute().parent.is_dir():
        raise usage_error(f"there is no folder {folder.absolute().parent}", "make it first")
    unfinished = Path(tempfile.mkdtemp(prefix=".adz-new-", dir=folder.absolute().parent))
    try:
        for name, text in rendered.items():
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return [folder / name for name in rendered]
