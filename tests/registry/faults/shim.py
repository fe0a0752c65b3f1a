"""Builds `shim.c`, starts processes under it, and tells it what to do from inside them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
SHORT_WRITE = 1000


def build(folder: Path) -> Path:
    """Compile the library into `folder`."""
    library = folder / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def run(library: Path, script: Path, arguments: Sequence[str | Path], seconds: float) -> str:
    """Run a script of this folder under the library; return what it printed."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, "LD_PRELOAD": str(library), "TEST_SHIM": str(library)},
        capture_output=True, text=True, check=False, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


class Shim:
    """The library inside a process that was started by `run`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["TEST_SHIM"])
        self._library.shim_calls.restype = ctypes.c_long

    def watch(self, folder: Path) -> None:
        """Only calls on files below this folder count."""
        self._library.shim_watch(os.fsencode(folder))

    def arm(self, at: int, number: int, *, repeated: bool = False) -> None:
        """Let the call `at` (1, 2, ...) fail with an error number, and the later ones too if
        `repeated`; 0 fails none and counts."""
        self._library.shim_arm(ctypes.c_long(at), number, int(repeated))

    def disarm(self) -> None:
        """Let every call through."""
        self._library.shim_arm(ctypes.c_long(0), 0, 0)

    @property
    def calls(self) -> int:
        """How many calls could have failed since `arm`."""
        return int(self._library.shim_calls())

    @property
    def hit(self) -> bool:
        """Whether a call failed since `arm`."""
        return bool(self._library.shim_hit())

    def record(self, path: Path | None) -> None:
        """Write every change down in this file; None ends that."""
        self._library.shim_record(os.fsencode(path) if path else None)

    def note(self, text: str) -> None:
        """Put a text between the changes."""
        self._library.shim_note(text.encode())
