"""A remote that sends other bytes than it should: all of it is noticed, nothing is stored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lies import WEIGHTS, home, only_weights, refused

from adapterhub.errors import EXIT_VERIFICATION
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.pull import pull
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteFile, TransferInterruptedError


def test_a_flipped_bit(receiver: Registry, remote: Any, quick: Bounds) -> None:
    def flip(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        yield data[:-1] + bytes([data[-1] ^ 1])

    remote.answer = only_weights(flip)
    error = refused(receiver, remote, quick)
    assert error.exit_code == EXIT_VERIFICATION
    assert WEIGHTS in error.message
    assert "its bytes are not those" in error.message
    # What was wrong twice is not kept: the next try begins again.
    assert [path.stat().st_size for path in (home() / "partial").iterdir()] == [0]


def test_a_bit_that_flips_once_costs_one_more_try(
    receiver: Registry, remote: Any, quick: Bounds
) -> None:
    tries: list[int] = []

    def flip(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        tries.append(offset)
        yield data if len(tries) > 1 else data[:-1] + bytes([data[-1] ^ 1])

    remote.answer = only_weights(flip)
    (result,) = pull(receiver, remote, ["sql"], Silent(), bounds=quick)
    assert tries == [0, 0]
    assert result.action == "pulled"


def test_a_file_that_is_longer_is_stopped_at_its_size_and_one(
    receiver: Registry, remote: Any, quick: Bounds
) -> None:
    yielded = 0

    def endless(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        nonlocal yielded
        yield data
        while True:
            yielded += 1
            yield b"x"

    remote.answer = only_weights(endless)
    error = refused(receiver, remote, quick)
    assert "is longer than its" in error.message
    assert error.exit_code == EXIT_VERIFICATION
    assert yielded == 1


def test_a_short_file_is_asked_for_again_and_given_up(
    receiver: Registry, remote: Any, quick: Bounds
) -> None:
    def short(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        if offset < 2_000_000:
            yield data[: 2_000_000 - offset]

    remote.answer = only_weights(short)
    error = refused(receiver, remote, quick)
    assert "broke off at 2000000 of" in error.message
    offsets = [offset for name, offset in remote.reads if name == WEIGHTS]
    assert offsets == [0, *[2_000_000] * (quick.tries - 1)]
    # The same command goes on from there.
    assert [path.stat().st_size for path in (home() / "partial").iterdir()] == [2_000_000]
    remote.answer = None
    remote.reads.clear()
    (result,) = pull(receiver, remote, ["sql"], Silent(), bounds=quick)
    assert (WEIGHTS, 2_000_000) in remote.reads
    assert result.sent < result.size
    assert list((home() / "partial").iterdir()) == []


def test_a_part_that_was_damaged_meanwhile_is_read_again(
    receiver: Registry, remote: Any, quick: Bounds
) -> None:
    remote.answer = only_weights(lambda file, offset, data: iter([data[:2_000_000]][: offset == 0]))
    refused(receiver, remote, quick)
    (part,) = (home() / "partial").iterdir()
    part.write_bytes(b"\0" * 2_000_000)
    remote.answer = None
    remote.reads.clear()
    (result,) = pull(receiver, remote, ["sql"], Silent(), bounds=quick)
    assert [at for name, at in remote.reads if name == WEIGHTS] == [2_000_000, 0]
    assert result.action == "pulled"


def test_a_part_that_is_too_long_is_thrown_away(
    receiver: Registry, remote: Any, quick: Bounds
) -> None:
    version = json.loads(remote.find("sql", "1").manifest)
    digest = version["files"][WEIGHTS]["sha256"]
    (home() / "partial").mkdir(parents=True)
    (home() / "partial" / digest.replace(":", "-")).write_bytes(b"\0" * 5_000_000)
    (result,) = pull(receiver, remote, ["sql"], Silent(), bounds=quick)
    assert result.action == "pulled"


def test_breaks_that_bring_something_do_not_count(
    receiver: Registry, remote: Any, quick: Bounds
) -> None:
    def piece(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        yield data[:300_000]
        raise TransferInterruptedError("the connection broke")

    remote.answer = only_weights(piece)
    (result,) = pull(receiver, remote, ["sql"], Silent(), bounds=quick)
    assert len([name for name, _ in remote.reads if name == WEIGHTS]) > quick.tries
    assert result.action == "pulled"


def test_a_trickle_is_given_up(receiver: Registry, remote: Any, quick: Bounds) -> None:
    def trickle(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        for at in range(len(data)):
            time.sleep(0.01)
            yield data[at : at + 1]

    remote.answer = only_weights(trickle)
    error = refused(receiver, remote, replace(quick, tries=2))
    assert "slower than 1024 bytes a second" in error.message


def test_one_failure_stops_the_other_files(receiver: Registry, remote: Any, quick: Bounds) -> None:
    """The endless file would never end by itself."""

    def answer(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        if file.name == WEIGHTS:
            for at in range(len(data)):
                time.sleep(0.001)
                yield data[at : at + 1]
        elif file.name == "adapter_config.json":
            yield data + b"more"
        else:
            yield data

    remote.answer = answer
    start = time.monotonic()
    error = refused(receiver, remote, replace(quick, patience=60))
    assert "adapter_config.json: it is longer" in error.message
    assert time.monotonic() - start < 5
