"""Which process it is: a number is used again, so the time at which it began goes with it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
# In /proc/PID/stat behind the name: the state, and the clock ticks from boot to the start.
_STATE, _START = 0, 19


@dataclass(frozen=True, slots=True)
class Process:
    """`began` is the boot's id and the ticks from it to the start of the process."""

    pid: int
    began: str

    @classmethod
    def current(cls) -> Process:
        """This process."""
        return cls(os.getpid(), _began(os.getpid()) or "")

    def is_alive(self) -> bool:
        """Whether it runs; what only waits for its parent has ended."""
        return bool(self.began) and _began(self.pid) == self.began

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this process and to no other; False where it has ended."""
        with self._held() as descriptor:
            if descriptor is None:
                return False
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
                return True
            return False

    def wait(self, seconds: float) -> bool:
        """Wait for its end; False where it still runs after so long."""
        with self._held() as descriptor:
            if descriptor is None:
                return True
            ended, _, _ = select.select([descriptor], [], [], seconds)
            return bool(ended)

    @contextmanager
    def _held(self) -> Iterator[int | None]:
        """A descriptor that stays this process's whatever becomes of its number."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            yield None
            return
        try:
            # Looked at once it is held: what began before cannot take its place any more.
            yield descriptor if self.is_alive() else None
        finally:
            os.close(descriptor)


def _began(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = _BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    # A name may hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in ("Z", "X") else f"{boot}-{fields[_START]}"
