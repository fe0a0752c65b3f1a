"""Several files at once."""

from __future__ import annotations

import threading
import time

import pytest

from adapterhub.exchange.parallel import StoppedError, run_parallel


def test_results_come_in_order_and_so_many_run_at_once() -> None:
    running, most = [0], [0]
    lock = threading.Lock()

    def job(number: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02 * (5 - number % 5))
        with lock:
            running[0] -= 1
        return number

    jobs = [lambda n=n: job(n) for n in range(12)]  # type: ignore[misc]
    assert run_parallel(jobs, workers=3, stop=threading.Event()) == list(range(12))
    assert most[0] == 3
    assert run_parallel([], workers=3, stop=threading.Event()) == []


def test_the_first_error_stops_the_rest_and_is_raised() -> None:
    stop = threading.Event()
    begun: list[int] = []

    def wait(number: int) -> None:
        begun.append(number)
        if stop.wait(20):
            raise StoppedError

    def fail() -> None:
        time.sleep(0.05)
        raise ValueError("the disk is full")

    jobs = [lambda: wait(0), fail, *[lambda: wait(1)] * 10]
    start = time.monotonic()
    with pytest.raises(ValueError, match="the disk is full"):
        run_parallel(jobs, workers=2, stop=stop)
    assert time.monotonic() - start < 5
    assert begun == [0]


def test_one_that_hangs_does_not_hold_up_an_error() -> None:
    def fail() -> None:
        raise ValueError("no")

    start = time.monotonic()
    with pytest.raises(ValueError, match="no"):
        run_parallel([lambda: time.sleep(20), fail], workers=2, stop=threading.Event())
    assert time.monotonic() - start < 10
