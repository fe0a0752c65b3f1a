"""Pickled weights become safetensors, read by a process that may do nothing else."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from adapterhub.bases.adapter_files import MAX_PAYLOAD, WEIGHTS
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.protocols import Progress

# Importing torch takes a few seconds on a busy machine; reading takes a second a GB.
_START_SECONDS = 120.0
_SECONDS_A_GIB = 60.0


def convert_pickle(source: Path, target: Path, progress: Progress) -> None:
    """Read the pickle `source` and write `adapter_model.safetensors` into `target`.

    torch reads it with `weights_only`, in a process without an environment, without rights to
    open files for writing, to run programs or to reach a network (unpickle.py), and bounded in
    memory and time. Raises AdzError (exit code 3) when it holds anything but tensors by name,
    and ModuleNotFoundError where torch is not installed.
    """
    for module in ("torch", "safetensors"):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named '{module}'", name=module)
    size = _checked_size(source)
    seconds = _START_SECONDS + _SECONDS_A_GIB * size / 2**30
    with progress.task(f"converting {source.name}", None), tempfile.TemporaryDirectory() as empty:
        command = [
            sys.executable, "-I", "-m", "adapterhub.imports.unpickle",
            str(source.absolute()), str((target / WEIGHTS).absolute()),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                cwd=empty,
                env={"OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _refuse(source, f"it was not read within {seconds:.0f} s") from None
    if done.returncode:
        raise _refuse(source, _reason(done))


def _checked_size(source: Path) -> int:
    if source.is_symlink() or not source.is_file():
        raise _refuse(source, "it is not a plain file")
    size = source.stat().st_size
    if size > MAX_PAYLOAD:
        raise _refuse(source, f"it has {size} bytes, at most {MAX_PAYLOAD} are read")
    return size


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"reading it was stopped (signal {-done.returncode})"
    # What a stranger's file made torch say: one line of plain characters.
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it is malformed"]
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:300]


def _refuse(source: Path, reason: str) -> AdzError:
    return AdzError(
        f"{source.name} is refused: {reason}",
        "save the adapter as safetensors where you trust it",
        exit_code=EXIT_VERIFICATION,
    )
