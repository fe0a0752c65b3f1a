"""SIGTERM and Ctrl-C while a server runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TerminatedError(Exception):
    """SIGTERM arrived."""


@contextmanager
def termination_raises() -> Iterator[Callable[[], None]]:
    """Within the block SIGTERM raises TerminatedError, as Ctrl-C raises KeyboardInterrupt; both
    are ignored from the call of what it yields. Elsewhere than in the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}

    def ignore() -> None:
        before.setdefault(signal.SIGINT, signal.getsignal(signal.SIGINT))
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
