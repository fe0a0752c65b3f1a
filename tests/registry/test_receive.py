"""Versions that were made elsewhere keep name, number and digest, or are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_USAGE, EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord, Manifest, Version, canonical_json, sha256_of
from adapterhub_registry import storing
from adapterhub_registry.store import LocalRegistry


@pytest.fixture
def elsewhere(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(tmp_path / "elsewhere")


@pytest.fixture
def made(elsewhere: LocalRegistry, make_payload: Any, make_manifest: Any) -> Callable[..., Version]:
    """Commit the payload of `seed` in the other registry."""
    return lambda name="sql", seed=0, **changes: elsewhere.commit(
        make_manifest(name, **changes), make_payload(seed)
    )


@pytest.fixture
def take(registry: Any, make_payload: Any) -> Callable[..., Version]:
    """Receive a version whose files are the payload of `seed`."""

    def run(version: Version, seed: int = 0, body: bytes | None = None) -> Version:
        body = version.manifest.canonical() if body is None else body
        return registry.receive(body, make_payload(seed), source="oci://hub.example/sql")

    return run


def test_name_number_digest_and_bytes_stay(made: Any, take: Any, registry: Any, home: Path) -> None:
    made(), made(seed=1)
    version = made(seed=2)
    assert take(version, seed=2) == version
    assert registry.resolve("sql@3") == version == registry.resolve("sql")
    assert registry.path(version).is_dir()
    entry = registry.log("sql")[0]
    assert (entry.action, entry.version, entry.source) == ("pull", 3, "oci://hub.example/sql")
    assert not list(registry.check())
    registry.database.path.unlink()
    rebuilt = LocalRegistry(home)
    assert rebuilt.resolve("sql") == version
    assert not list(rebuilt.check())


def test_our_own_numbers_go_on_above_the_highest(made: Any, take: Any, commit: Any) -> None:
    made(), made(seed=1)
    take(made(seed=2), seed=2)
    assert commit().number == 4


def test_a_lower_number_is_not_the_latest(made: Any, take: Any, registry: Any) -> None:
    first, second = made(), made(seed=1)
    take(second, seed=1)
    take(first)
    assert registry.resolve("sql").number == 2
    assert [v.number for v in registry.versions("sql")] == [1, 2]


def test_what_is_here_is_returned_without_looking_at_the_files(
    made: Any, take: Any, registry: Any, tmp_path: Path
) -> None:
    version = take(made())
    again = registry.receive(version.manifest.canonical(), tmp_path / "nothing", source="x")
    assert again == version
    assert [e.action for e in registry.log("sql")] == ["pull"]


def test_another_version_of_the_same_number_is_refused(
    made: Any, take: Any, commit: Any, registry: Any
) -> None:
    ours = commit(seed=1)
    with pytest.raises(AdzError, match=r"sql@1 is another version here.*--as") as caught:
        take(made())
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert registry.versions() == [ours]


def test_what_was_removed_or_lost_comes_back(
    made: Any, take: Any, registry: Any, home: Path
) -> None:
    version = take(made())
    registry.remove("sql")
    assert take(version) == version
    registry.remove("sql")
    registry.collect(grace_seconds=0, retention_seconds=0)
    assert take(version) == version
    registry.path(version)
    registry.tag("sql@1", "prod")
    registry.blobs.path(version.digest).unlink()
    registry.database.path.unlink()
    rebuilt = LocalRegistry(home)
    with pytest.raises(AdzError, match="is lost"):
        rebuilt.resolve("sql@1")
    assert take(version).aliases == ("prod",)
    assert not list(registry.check())


def test_artifacts_come_too_and_must_be_those_of_the_manifest(
    elsewhere: Any, registry: Any, make_payload: Any, make_manifest: Any, tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "curve.png").write_bytes(b"png")
    version = elsewhere.commit(make_manifest(), make_payload(), artifacts)
    body = version.manifest.canonical()
    with pytest.raises(AdzError, match=r"curve\.png is missing"):
        registry.receive(body, make_payload(), source="x")
    (artifacts / "more").write_bytes(b"more")
    with pytest.raises(AdzError, match="more is not what its manifest names"):
        registry.receive(body, make_payload(), artifacts, source="x")
    (artifacts / "more").unlink()
    assert registry.receive(body, make_payload(), artifacts, source="x") == version
    registry.artifacts(version, tmp_path / "out")
    assert (tmp_path / "out" / "curve.png").read_bytes() == b"png"


def test_other_bytes_are_refused(made: Any, take: Any, registry: Any) -> None:
    with pytest.raises(AdzError, match=r"adapter_model.safetensors is not what") as caught:
        take(made(), seed=1)
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert registry.names() == []
    assert not list(registry.blobs.directory.iterdir())
    assert not list(registry.ingest.iterdir())


def changed(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda value: canonical_json(value | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: b"", "it is not JSON"),
        (lambda value: b"[" * 10**5, "it is not JSON"),
        (lambda value: b"\xff", "it is not JSON"),
        (lambda value: canonical_json(value).replace(b"2", b"NaN", 1), "it is not"),
        (lambda value: json.dumps(value).encode(), "it is not in canonical form"),
        (lambda value: b'{"name":"x",' + canonical_json(value)[1:], "it is not in canonical form"),
        (lambda value: b" " * 2**21, "it has 2097152 bytes"),
        (changed(flavour="x"), "flavour: Extra inputs are not permitted (was it made by a newer"),
        (changed(format=2), "format: Input should be 1"),
        (changed(version=0), "its version is 0"),
        (changed(version=10**10), "its version is 10000000000"),
        (changed(created="yesterday"), "its time of creation"),
        (changed(method="\x1b[31mlora"), "its method is"),
        (changed(base={"status": "unknown", "name": "a\nb"}), "its base's name is"),
        (changed(payload="sha256:0"), "its payload digest does not match"),
        (changed(name="../sql"), "'../sql' is not a valid name"),
        (changed(artifacts={"../x": {"sha256": "sha256:" + "0" * 64, "size": 1}}), "'../x'"),
        (changed(files={}), "its payload digest does not match"),
    ],
)
def test_a_manifest_that_no_registry_wrote_is_refused(
    made: Any, take: Any, registry: Any, change: Callable[[dict[str, Any]], bytes], message: str
) -> None:
    version = made()
    value = json.loads(version.manifest.canonical())
    with pytest.raises(AdzError) as caught:
        take(version, body=change(value))
    assert message in str(caught.value)
    assert caught.value.exit_code in (EXIT_USAGE, EXIT_VERIFICATION)
    assert registry.names() == []


def test_the_gates_and_the_hook_look_at_what_is_received(
    made: Any, take: Any, registry: Any, hook: Any, make_payload: Any
) -> None:
    seen = []

    def refuse(manifest: Manifest) -> None:
        seen.append(manifest)
        raise AdzError("not here")

    version = made()
    hook(refuse)
    with pytest.raises(AdzError, match="not here"):
        take(version)
    assert seen[-1] == version.manifest
    assert registry.names() == []


def test_what_another_process_received_meanwhile_is_here(
    made: Any, take: Any, registry: Any, home: Path, make_payload: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    version, other = made(), LocalRegistry(home)
    body, calls = version.manifest.canonical(), []

    def receive_meanwhile(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            other.receive(body, make_payload(), source="x")

    monkeypatch.setattr(storing, "check_payload", receive_meanwhile)
    assert take(version) == version
    assert len(calls) == 2
    assert [entry.action for entry in registry.log("sql")] == ["pull"]
    assert not list(registry.check())


def test_a_name_that_a_base_has_is_refused(
    made: Any, take: Any, registry: Any, make_base: Any
) -> None:
    registry.add_base(make_base("sql"))
    with pytest.raises(AdzError, match="'sql' is a base's name"):
        take(made())


def test_a_stored_file_is_copied_verified(commit: Any, registry: Any, tmp_path: Path) -> None:
    record = commit().manifest.files["adapter_model.safetensors"]
    target = tmp_path / "copy"
    assert registry.copy_blob(record, target)
    assert sha256_of(target.read_bytes()) == record.sha256
    absent = FileRecord(sha256="sha256:" + "0" * 64, size=1)
    assert not registry.copy_blob(absent, tmp_path / "absent")
    blob = registry.blobs.path(record.sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * record.size)
    assert not registry.copy_blob(record, tmp_path / "damaged")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["copy"]
