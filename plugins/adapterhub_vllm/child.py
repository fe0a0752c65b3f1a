"""The vLLM process: started, watched while it starts, stopped with all of its children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

DRAIN = signal.SIGUSR1
"""Tells the server process to answer what it has, nothing new, and to end."""

_STOP_SECONDS = 30
_PR_SET_PDEATHSIG = 1

# Lines such as `(EngineCore pid=7) ERROR 11-22 03:20:10 [core.py:1] ValueError: no memory`.
_PREFIX = re.compile(r"^(\(.*?pid=\d+\)\s*)?([A-Z]+ [\d-]+ [\d:]+ \[[^\]]*\]\s*)?")
_REFUSAL = re.compile(r"adz: .+")
_USAGE = re.compile(r"\S+\.py: error: .+")
_EXCEPTION = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b: .+")
_REPLACED = re.compile(r"adapterhub replaced in .+")
# Of vLLM's own checks, of allocators, and of the system, which kills whoever takes too much.
_MEMORY = re.compile(
    r"Available memory on node|[Oo]ut of memory|(can't|Cannot) allocate memory|MemoryError"
    r"|[Nn]o available memory|available KV cache memory|killed by SIGKILL"
)
_KILLED = re.compile(r"Failed core proc\(s\): \{[^}]*: -9\b")
_CONSEQUENCE = ("Engine core initialization failed", "WorkerProc initialization failed")
# What a log line tells about how far the start is.
_STAGES = (
    ("Starting vLLM server", "opening the port"),
    ("KV cache", "making room for the KV cache"),
    ("Loading weights took", "weights loaded"),
    ("Starting to load model", "loading the weights"),
    ("Initializing a V1 LLM engine", "starting the engine"),
)


class Child:
    """A process in a session of its own, so that the terminal's Ctrl-C reaches only us."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # To append: the log is emptied when it is too long, and others write there too.
        with log.open("ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> bool:
        """Wait so long for its end; whether it has ended."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        # Its last line may have no end, and what others write there begins one.
        with contextlib.suppress(OSError), self.log.open("ab") as output:
            output.write(b"\n")
        return True

    def stage(self) -> str:
        """How far the start is, in a few words."""
        text = self._said()
        return next((words for mark, words in _STAGES if mark in text), "importing vLLM")

    def reason(self) -> str:
        """The line of its log that says best why it ended, or the signal that ended it."""
        code = self._process.poll()
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return explain_end(self._said())

    def replaced(self) -> str | None:
        """What our plugin says that it replaced in vLLM."""
        found = _REPLACED.search(self._said())
        return found.group() if found else None

    def drain(self, seconds: float) -> None:
        """Let its doors close and it end when it has answered; waits so long for that."""
        self._process.send_signal(DRAIN)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    def _said(self) -> str:
        with self.log.open("rb") as file:
            # What stands before is of others, unless it was emptied since.
            file.seek(self._begin if self.log.stat().st_size >= self._begin else 0)
            return file.read().decode(errors="replace")

    def stop(self) -> None:
        """Ask it to end, and end it with all of its children when it does not."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._process.wait(timeout=_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def explain_end(log: str) -> str:
    """The line of a log that says why vLLM ended: our own refusal, a wrong flag, or the first
    exception, which is the cause of those that follow."""
    lines = [_PREFIX.sub("", line).strip() for line in log.splitlines()]
    for pattern in (_REFUSAL, _USAGE, _EXCEPTION):
        for line in lines:
            if pattern.match(line) and not any(words in line for words in _CONSEQUENCE):
                return line.removeprefix("adz: ")[:400]
    if _KILLED.search(log):
        return "its engine was killed by SIGKILL"
    return next((line[:400] for line in reversed(lines) if line), "it printed nothing")


def lacks_memory(reason: str) -> bool:
    """Whether a start failed, for this reason, because memory ran out."""
    return _MEMORY.search(reason) is not None


def _end_with_parent() -> None:
    """Runs in the child: where adz is killed, vLLM must not stay behind (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
