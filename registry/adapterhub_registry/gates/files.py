"""Which files a payload may hold: an allowlist of plain ones, bounded in number and size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adapterhub.bases.adapter_files import CONFIG, MAX_PAYLOAD, PAYLOAD, README, WEIGHTS
from adapterhub.errors import EXIT_VERIFICATION, AdzError

MAX_FILES = 64
MAX_README = 2**20

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")


def check_files(directory: Path) -> None:
    """Raise AdzError (exit code 3) for a file that may not be stored, or one that is missing."""
    entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    if len(entries) > MAX_FILES:
        raise _refuse(f"{len(entries)} files, at most {MAX_FILES} are stored")
    for entry in entries:
        if entry.is_symlink():
            raise _refuse(f"{entry.name} is a symbolic link", "copy the file it points to")
        if entry.name not in PAYLOAD:
            raise _refuse(
                f"{entry.name}: {_unwanted(entry.name)}",
                f"leave only {WEIGHTS}, {CONFIG} and {README}",
            )
        if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            raise _refuse(f"{entry.name} is not a plain file")
    sizes = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
    if sum(sizes.values()) > MAX_PAYLOAD:
        raise _refuse(f"{sum(sizes.values())} bytes, at most {MAX_PAYLOAD} are stored")
    if sizes.get(README, 0) > MAX_README:
        raise _refuse(f"{README} has {sizes[README]} bytes, at most {MAX_README} are stored")
    for name in (WEIGHTS, CONFIG):
        if name not in sizes:
            raise _refuse(
                f"there is no {name}", "save the adapter as safetensors with its configuration"
            )


def _unwanted(name: str) -> str:
    if name.endswith(_PICKLES):
        return "a pickle can run code when it is loaded; only safetensors are stored"
    if name.endswith(_ARCHIVES):
        return "archives are not unpacked"
    if name.endswith((".jinja", ".jinja2")):
        return "a chat template is a program; the base's own is used"
    return "no file that an adapter consists of"


def _refuse(reason: str, hint: str = "") -> AdzError:
    return AdzError(f"the adapter is refused: {reason}", hint, exit_code=EXIT_VERIFICATION)
