"""Several files at once: the first failure stops the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

# How long to wait for the others after a failure: one may hang in a read for much longer.
_FAREWELL_SECONDS = 1.0


class StoppedError(Exception):
    """Another file of the same version failed, or the user pressed Ctrl-C."""


def run_parallel(
    jobs: Iterable[Callable[[], T]], *, workers: int, stop: threading.Event
) -> list[T]:
    """Run `jobs` on threads and return their results in order.

    When one raises, or the caller is interrupted, `stop` is set, on which the others raise
    StoppedError; the first error is raised.
    """
    work = _Work(list(jobs), stop)
    # They do not keep the process alive: Ctrl-C must not wait for a server that is silent.
    threads = [
        threading.Thread(target=work.run, daemon=True) for _ in range(min(workers, len(work.jobs)))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive() and not work.errors:
                thread.join(0.1)
    except BaseException:
        stop.set()
        raise
    if work.errors:
        deadline = time.monotonic() + _FAREWELL_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise work.errors[0]
    return [work.results[number] for number in range(len(work.jobs))]


class _Work(Generic[T]):
    def __init__(self, jobs: list[Callable[[], T]], stop: threading.Event) -> None:
        self.jobs = jobs
        self.results: dict[int, T] = {}
        self.errors: list[BaseException] = []
        self._stop = stop
        self._next = iter(range(len(jobs)))
        self._lock = threading.Lock()

    def run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = next(self._next, None)
            if number is None:
                return
            try:
                self.results[number] = self.jobs[number]()
            except BaseException as error:
                self.errors.append(error)
                self._stop.set()
