"""Files that are kept between two tries: one writer each, and gone after days."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from adapterhub.exchange.partial import KEEP_SECONDS, partial_file, partial_path, sweep

DIGEST = "sha256:" + "ab" * 32
FORK = multiprocessing.get_context("fork")


def hold(pipe: Connection) -> None:
    with partial_file(DIGEST, lambda: None) as file:
        file.write(b"first")
        file.flush()
        pipe.send("held")
        pipe.recv()
        partial_path(DIGEST).unlink()


def test_what_was_written_is_there_the_next_time(home: Path) -> None:
    with partial_file(DIGEST, lambda: None) as file:
        file.write(b"abc")
    with partial_file(DIGEST, lambda: None) as file:
        assert file.read() == b"abc"


def test_a_second_process_waits_and_gets_a_file_of_its_own(home: Path) -> None:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(theirs,), daemon=True)
    process.start()
    assert ours.recv() == "held"
    told: list[float] = []

    def waiting() -> None:
        told.append(time.monotonic())
        ours.send("let go")

    with partial_file(DIGEST, waiting) as file:
        # The other one finished and took its file away: this is another one.
        assert file.read() == b""
        assert partial_path(DIGEST).exists()
    assert len(told) == 1
    process.join(10)
    assert process.exitcode == 0


def test_a_file_that_is_taken_away_before_it_is_locked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    locked: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        locked.append(descriptor)
        if len(locked) == 1:
            # The other process ends right now.
            partial_path(DIGEST).unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with partial_file(DIGEST, lambda: None) as file:
        assert os.path.samestat(os.fstat(file.fileno()), partial_path(DIGEST).stat())
    assert len(locked) == 2


def test_a_killed_process_holds_nothing(home: Path) -> None:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(theirs,), daemon=True)
    process.start()
    assert ours.recv() == "held"
    process.kill()
    process.join(10)
    with partial_file(DIGEST, lambda: pytest.fail("nobody holds it")) as file:
        assert file.read() == b"first"


def test_old_ones_are_swept_unless_they_are_held(home: Path) -> None:
    held = "sha256:" + "cd" * 32
    young = "sha256:" + "ef" * 32
    for digest in (DIGEST, held, young):
        with partial_file(digest, lambda: None) as file:
            file.write(b"12345")
    old = time.time() - KEEP_SECONDS - 60
    for digest in (DIGEST, held):
        os.utime(partial_path(digest), (old, old))
    with partial_file(held, lambda: None):
        assert sweep(dry_run=True) == 5
        assert partial_path(DIGEST).exists()
        assert sweep() == 5
    assert not partial_path(DIGEST).exists()
    assert partial_path(held).exists()
    assert partial_path(young).exists()
    assert sweep() == 5
    assert not partial_path(held).exists()


def test_gc_sweeps_them(adz, home: Path) -> None:  # type: ignore[no-untyped-def]
    with partial_file(DIGEST, lambda: None) as file:
        file.write(b"x" * 5000)
    os.utime(partial_path(DIGEST), (0, 0))
    assert "would free 5.0 kB" in adz("gc", "--dry-run").out
    assert partial_path(DIGEST).exists()
    assert "freed 5.0 kB" in adz("gc").out
    assert not partial_path(DIGEST).exists()
