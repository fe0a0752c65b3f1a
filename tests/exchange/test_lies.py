"""A remote that sends something else than it should: all of it is noticed, nothing is stored."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.manifest import Version, canonical_json, payload_digest
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteFile, RemoteVersion, TransferInterruptedError

WEIGHTS = "adapter_model.safetensors"
Answer = Callable[[RemoteFile, int, bytes], Iterator[bytes]]


@pytest.fixture
def receiver(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Callable[..., Version],
    remote: Any,
) -> Registry:
    """An empty registry; `remote` holds sql@1 with weights of 3.2 MB."""
    commit_small(sender, width=200_000)
    list(push(sender, remote, ["sql"], Silent()))
    return open_home("receiver")


def only_weights(change: Answer) -> Answer:
    def answer(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        if file.name == WEIGHTS:
            yield from change(file, offset, data)
        else:
            yield data

    return answer


def home() -> Path:
    return Path(os.environ["ADZ_HOME"])


def refused(receiver: Registry, remote: Any, bounds: Bounds) -> AdzError:
    with pytest.raises(AdzError) as caught:
        list(pull(receiver, remote, ["sql@1"], Silent(), bounds=bounds))
    assert receiver.names() == []
    assert "\n" not in str(caught.value)
    blobs = home() / "registry" / "blobs" / "sha256"
    assert list(blobs.iterdir()) == []
    assert list((home() / "staging").glob("*")) == []
    return caught.value


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


def change_manifest(remote: Any, **changes: Any) -> None:
    value = json.loads(remote.find("sql", "1").manifest)
    for key, change in changes.items():
        value[key] = change(value[key]) if callable(change) else change
    if "files" in changes:
        records = value["files"].items()
        value["payload"] = payload_digest({k: _Digest(v["sha256"]) for k, v in records})  # type: ignore[dict-item]
    remote.published["sql", "1"] = RemoteVersion(canonical_json(value))


class _Digest:
    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256


PARENT = {"name": "a", "version": 1, "digest": f"sha256:{1:064x}", "role": "source"}
RECORD = {"sha256": f"sha256:{1:064x}", "size": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "with the manifest of other@1"),
        ({"version": 2}, "with the manifest of sql@2"),
        ({"version": 0}, "with the manifest of sql@0"),
        ({"format": 2}, "made by a newer adapterhub"),
        ({"files": lambda files: files | {"../x": RECORD}}, r"'\.\./x' is not allowed"),
        ({"files": lambda files: files | {"/etc/x": RECORD}}, "is not allowed"),
        ({"files": lambda files: files | {"a b": RECORD}}, "is not allowed"),
        ({"artifacts": {"../../x": RECORD}}, "is not allowed"),
        ({"files": lambda files: files | {"x": RECORD | {"size": -1}}}, "no valid digest or size"),
        ({"files": lambda files: files | {"x": RECORD | {"size": 1 << 40}}}, "--max-bytes"),
        (
            {"files": lambda files: files | {"x": RECORD | {"sha256": "sha256:../x"}}},
            "no valid digest or size",
        ),
        ({"files": {}}, "payload digest"),
        ({"payload": "sha256:0"}, "payload digest"),
        ({"artifacts": {f"f{n}": RECORD for n in range(70)}}, "more than 64"),
        ({"metrics": {"loss\x1b[2J": 1}}, "control characters"),
        ({"recipe": {"a": [{"b": "\x9b2J"}]}}, "control characters"),
        ({"recipe": {"a": "x\0y"}}, "control characters"),
        ({"base": {"status": "unknown", "name": "x\ny"}}, "not a valid name"),
        ({"base": {"status": "unknown", "name": "../x"}}, "not a valid name"),
        ({"method": "lora\nx"}, "is not a component's name"),
        ({"quantizer": "<b>"}, "is not a component's name"),
        ({"parents": [PARENT | {"name": "../x"}]}, "not a valid name"),
        ({"parents": [PARENT | {"digest": "x"}]}, "no valid digest"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"base": 7}, "base: "),
    ],
)
def test_a_manifest_that_is_not_what_was_asked_for(
    receiver: Registry, remote: Any, quick: Bounds, changes: dict[str, Any], message: str
) -> None:
    value = json.loads(remote.find("sql", "1").manifest)
    for key in set(changes) - set(value):
        value[key] = None
    remote.published["sql", "1"] = RemoteVersion(canonical_json(value))
    change_manifest(remote, **changes)
    with pytest.raises(AdzError, match=message):
        list(pull(receiver, remote, ["sql@1"], Silent(), bounds=quick))
    assert remote.reads == []
    refused(receiver, remote, quick)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"name":"sql","name":"sql"}',
        b'{"name": "sql"}',
        b"x" * (1 << 21),
        b'{"alpha":NaN}',
    ],
)
def test_a_manifest_that_is_none(
    receiver: Registry, remote: Any, quick: Bounds, body: bytes
) -> None:
    remote.published["sql", "1"] = RemoteVersion(body)
    assert refused(receiver, remote, quick).exit_code == EXIT_VERIFICATION


def test_two_values_of_one_key_are_refused(receiver: Registry, remote: Any, quick: Bounds) -> None:
    body = remote.find("sql", "1").manifest
    assert b'"method":"lora"' in body
    body = body.replace(b'"method":"lora"', b'"method":"dora","method":"lora"')
    remote.published["sql", "1"] = RemoteVersion(body)
    assert "not canonical" in refused(receiver, remote, quick).message


def test_a_renamed_version_is_checked_too(receiver: Registry, remote: Any, quick: Bounds) -> None:
    def flip(file: RemoteFile, offset: int, data: bytes) -> Iterator[bytes]:
        yield data[:-1] + bytes([data[-1] ^ 1])

    remote.answer = only_weights(flip)
    with pytest.raises(AdzError, match="its bytes are not those"):
        list(pull(receiver, remote, ["sql"], Silent(), rename="mine", bounds=quick))
    assert receiver.names() == []


def test_a_manifest_that_is_too_large(receiver: Registry, remote: Any, quick: Bounds) -> None:
    change_manifest(remote, recipe={"x": "y" * (1 << 20)})
    error = refused(receiver, remote, quick)
    assert "is larger than 1 MiB" in error.message
    assert error.exit_code == EXIT_VERIFICATION
