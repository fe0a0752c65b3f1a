"""A remote whose manifest is not what it should be: that is noticed, nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lies import only_weights, refused

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.pull import pull
from adapterhub.manifest import canonical_json, payload_digest
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry, RemoteFile, RemoteVersion


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
