"""A process is signalled only where it is surely the one that is meant."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from adapterhub.serve.lifecycle.process import Process, _began


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def named(process: subprocess.Popen[bytes]) -> Process:
    return Process(process.pid, _began(process.pid) or "")


def test_the_right_process_is_signalled_and_waited_for(sleeper: subprocess.Popen[bytes]) -> None:
    process = named(sleeper)
    assert process.is_alive()
    assert not process.wait(0.05)
    assert process.signal(signal.SIGTERM)
    assert process.wait(10)
    # Nobody has asked for its exit code yet: it is a zombie, and has ended all the same.
    assert not process.is_alive()
    assert not process.signal(signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGTERM


def test_a_number_that_was_used_again_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    boot, _, ticks = named(sleeper).began.rpartition("-")
    for began in (f"{boot}-{int(ticks) - 1}", f"another-boot-{ticks}", ""):
        other = Process(sleeper.pid, began)
        assert not other.is_alive()
        assert not other.signal(signal.SIGKILL)
        assert other.wait(0)
    time.sleep(0.05)
    assert sleeper.poll() is None


def test_a_process_that_never_was() -> None:
    nobody = Process(2**22 + 1, "x-1")
    assert not nobody.is_alive()
    assert not nobody.signal(signal.SIGTERM)
