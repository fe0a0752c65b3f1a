"""Commits, references and attestations."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_USAGE, EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseLink, payload_digest, sha256_of
from adapterhub.plugins import open_registry
from adapterhub.protocols import Registry
from adapterhub_registry import disk
from adapterhub_registry.store import LocalRegistry


def test_it_arrives_as_the_plugin_called_local(home: Path) -> None:
    assert isinstance(open_registry(), LocalRegistry)


def test_it_has_every_method_of_the_protocol() -> None:
    methods = {n: f for n, f in vars(Registry).items() if inspect.isfunction(f) and n[0] != "_"}
    assert len(methods) >= 20
    for name, function in methods.items():
        assert inspect.signature(getattr(LocalRegistry, name)) == inspect.signature(function), name


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, adapterhub_registry.store; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_commit_fills_the_manifest(registry: Any, make_payload: Any, make_manifest: Any) -> None:
    payload = make_payload()
    version = registry.commit(make_manifest(), payload)
    manifest = version.manifest
    assert (version.name, version.number, manifest.version) == ("sql", 1, 1)
    assert manifest.created.endswith("Z")
    assert version.digest == sha256_of(manifest.canonical())
    assert set(manifest.files) == {"adapter_config.json", "adapter_model.safetensors"}
    for name, record in manifest.files.items():
        data = (payload / name).read_bytes()
        assert record.sha256 == sha256_of(data)
        assert record.size == len(data)
        assert registry.blobs.path(record.sha256).read_bytes() == data
    assert manifest.payload == payload_digest(manifest.files)


def test_versions_count_from_one_for_each_name(commit: Any, registry: Any) -> None:
    numbers = [commit(name).number for name in ("sql", "sql", "team/french", "sql")]
    assert numbers == [1, 2, 1, 3]
    assert registry.names() == ["sql", "team/french"]
    assert [v.reference for v in registry.versions()] == [
        "sql@1", "sql@2", "sql@3", "team/french@1",
    ]  # fmt: skip
    assert [v.number for v in registry.versions("sql")] == [1, 2, 3]


def test_a_version_that_came_first_takes_the_number(
    commit: Any, registry: Any, home: Path, make_payload: Any, make_manifest: Any, hook: Any
) -> None:
    other, numbers = LocalRegistry(home), []

    def commit_another(manifest: Any) -> None:
        numbers.append(manifest.version)
        if len(numbers) < 3:
            other.commit(make_manifest(), make_payload(len(numbers)))

    hook(commit_another)
    version = commit()
    assert version.number == 3
    assert numbers == [0, 0, 0]
    assert version.manifest.version == 3
    assert version.digest == sha256_of(version.manifest.canonical())
    assert [v.number for v in registry.versions("sql")] == [1, 2, 3]
    # Its manifest with another number was not stored.
    assert not list(registry.check())
    assert len(list(registry.blobs.directory.iterdir())) == 3 + 3 + 1


def test_a_reopened_registry_knows_the_same(commit: Any, home: Path) -> None:
    version = commit()
    assert LocalRegistry(home).resolve("sql") == version


def test_references(commit: Any, registry: Any) -> None:
    first, second = commit(), commit()
    registry.tag("sql@1", "prod")
    for reference, expected in {
        "sql": second,
        "sql@latest": second,
        "sql@1": first,
        "sql@prod": first,
        f"sql@{first.digest}": first,
        f"sql@{first.digest[:15]}": first,
    }.items():
        assert registry.resolve(reference).digest == expected.digest
    assert registry.resolve("sql@1").aliases == ("prod",)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("sqll", "unknown adapter 'sqll' (did you mean sql?)"),
        ("sql@9", "sql has no version 9 (it has 1, 2)"),
        ("sql@prod", "sql has no alias 'prod' (its aliases are stable)"),
        ("sql@sha256:00000000", "sql has no version sha256:00000000 (see 'adz log sql')"),
        ("llama", "llama is a base, not an adapter (see 'adz base show llama')"),
    ],
)
def test_a_reference_that_matches_nothing_says_what_exists(
    commit: Any, registry: Any, make_base: Any, reference: str, message: str
) -> None:
    commit(), commit()
    registry.tag("sql@1", "stable")
    registry.add_base(make_base())
    with pytest.raises(AdzError) as caught:
        registry.resolve(reference)
    assert str(caught.value) == message
    assert caught.value.exit_code == EXIT_USAGE


def test_a_digest_prefix_of_two_versions_is_refused(commit: Any, registry: Any) -> None:
    shortest: dict[str, str] = {}
    while True:
        # Eight digits do not collide by chance: make the index say that they do.
        version = commit()
        shortest[version.digest[:15]] = version.digest
        if len(shortest) == 2:
            break
    low, high = (f"sha256:{'0' * 8}{end * 56}" for end in "ab")
    with registry.database.reading() as connection:
        for digest, number in ((low, 1), (high, 2)):
            connection.execute("UPDATE versions SET digest = ? WHERE number = ?", (digest, number))
    with pytest.raises(AdzError, match="means more than one version"):
        registry.resolve("sql@sha256:00000000")


@pytest.mark.parametrize("name", ["..", "a..b", "../x", "/x", "x/../y", "A", "a\n", "", "a/b/c"])
def test_a_name_outside_the_allowlist_is_refused(commit: Any, registry: Any, name: str) -> None:
    with pytest.raises(AdzError, match="not a valid name") as caught:
        commit(name)
    assert caught.value.exit_code == EXIT_USAGE
    assert registry.names() == []
    assert not list(registry.ingest.iterdir())


def test_a_symbolic_link_is_not_followed(
    registry: Any, make_payload: Any, make_manifest: Any, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    payload = make_payload()
    (payload / "README.md").symlink_to(secret)
    with pytest.raises(AdzError, match=r"README\.md is not a regular file"):
        registry.commit(make_manifest(), payload)
    assert registry.names() == []


def test_a_file_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(AdzError, match="is a symbolic link"):
        disk.copy(tmp_path / "link", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""


def test_a_missing_payload_is_refused(registry: Any, make_manifest: Any, tmp_path: Path) -> None:
    with pytest.raises(AdzError, match="there is no directory"):
        registry.commit(make_manifest(), tmp_path / "nothing")


def test_a_hook_sees_the_files_and_can_refuse(commit: Any, registry: Any, hook: Any) -> None:
    seen = []

    def refuse(manifest: Any) -> None:
        seen.append(manifest)
        raise AdzError("not here")

    hook(refuse)
    with pytest.raises(AdzError, match="not here"):
        commit()
    assert set(seen[0].files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert registry.names() == []
    assert not list(registry.ingest.iterdir())


def test_the_gates_refuse_before_anything_is_stored(
    registry: Any,
    make_payload: Any,
    make_manifest: Any,
    monkeypatch: pytest.MonkeyPatch,
    make_base: Any,
) -> None:
    base = make_base()
    registry.add_base(base)
    seen: dict[str, Any] = {}

    def gate(directory: Path, manifest: Any, record: Any) -> None:
        seen.update(names={p.name for p in directory.iterdir()}, base=record)
        raise AdzError("a gate", exit_code=EXIT_VERIFICATION)

    monkeypatch.setattr("adapterhub_registry.storing.check_payload", gate)
    link = BaseLink(status="recorded", name="other-name", digests=base.digests)
    with pytest.raises(AdzError, match="a gate"):
        registry.commit(make_manifest(base=link), make_payload())
    assert seen == {"names": {"adapter_config.json", "adapter_model.safetensors"}, "base": base}
    assert registry.names() == []
    assert not list(registry.blobs.directory.iterdir())


def test_artifacts_are_kept_beside_the_payload(
    registry: Any, make_payload: Any, make_manifest: Any, tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "curve.png").write_bytes(b"png")
    version = registry.commit(make_manifest(), make_payload(), artifacts)
    assert "curve.png" not in {path.name for path in registry.path(version).iterdir()}
    registry.artifacts(version, tmp_path / "out")
    assert (tmp_path / "out" / "curve.png").read_bytes() == b"png"
    assert not list(registry.check())


def test_equal_files_are_stored_once(commit: Any, registry: Any) -> None:
    commit("one"), commit("two")
    # Two files that both share, and a manifest each.
    assert len(list(registry.blobs.directory.iterdir())) == 4


def test_a_commit_heals_a_damaged_blob(commit: Any, registry: Any) -> None:
    version = commit()
    blob = registry.blobs.path(version.manifest.files["adapter_model.safetensors"].sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"rubbish")
    assert list(registry.check())
    commit()
    assert not list(registry.check())


def test_attestations_are_appended(commit: Any, registry: Any) -> None:
    version, other = commit(), commit()
    registry.attest(version, "eval", {"metric": "exact_match", "score": 0.5})
    registry.attest(version, "signature", {"key": "k"})
    registry.attest(version, "eval", {"metric": "exact_match", "score": 0.75})
    found = registry.attestations(version, "eval")
    assert [a["body"]["score"] for a in found] == [0.5, 0.75]
    assert [a["kind"] for a in registry.attestations(version)] == ["eval", "signature", "eval"]
    assert all(a["time"].endswith("Z") for a in found)
    assert registry.attestations(other) == []


def test_a_damaged_manifest_is_not_believed(commit: Any, registry: Any) -> None:
    version = commit()
    changed = json.loads(version.manifest.canonical()) | {"method": "dora"}
    with registry.database.reading() as connection:
        connection.execute("UPDATE manifests SET body = ?", (json.dumps(changed).encode(),))
    with pytest.raises(AdzError, match="the manifest of sql@1 is damaged"):
        registry.resolve("sql")
