"""Several files at once: the first failure stops the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


class StoppedError(Exception):
    """Another file of the same version failed, or the user pressed Ctrl-C."""


def run_parallel(
    jobs: Iterable[Callable[[], T]], *, workers: int, stop: threading.Event
) -> list[T]:
    """Run `jobs` on threads and return their results in order.

    When one raises, or the caller is interrupted, `stop` is set, on which the others raise
    StoppedError; the first error that is not that is raised.
    """
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() and not future.exception() for future in futures):
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
    for future in futures:
        if (error := _error(future)) is not None and not isinstance(error, StoppedError):
            raise error
    return [future.result() for future in futures]


def _error(future: Future[T]) -> BaseException | None:
    return None if future.cancelled() else future.exception()
