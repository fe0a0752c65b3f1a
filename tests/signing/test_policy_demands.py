"""A policy that demands signatures, at every door: push, pull, import, and before serving."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import BaseLink, BaseRecord, Version
from adapterhub.plugins import open_registry
from adapterhub.policy import fingerprint
from adapterhub.serve.errors import RequestError
from adapterhub.serve.models import list_models, resolve_model
from adapterhub.signing.signature import sign_version, verify_signature

Keys = tuple[Path, Path]


@pytest.fixture
def demand(home: Path, key: Keys) -> Callable[..., None]:
    """Write a policy that demands the key of `team/*`, or other text."""

    def write(text: str = "") -> None:
        home.mkdir(exist_ok=True)
        (home / "policy.yaml").write_text(text or f"signatures: {{team/*: [{key[1]}]}}\n")

    return write


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demand: Any, key: Keys) -> Any:
    """Go to another machine: a home of its own, with the same policy."""

    def go() -> None:
        home = tmp_path / "elsewhere"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "policy.yaml").write_text(f"signatures: {{team/*: [{key[1]}]}}\n")
        monkeypatch.setenv("ADZ_HOME", str(home))

    return go


def tag_of(share: Path, reference: str) -> Path:
    name, _, tag = reference.partition("@")
    return share / "names" / name / "_tags" / tag


def signature_of(share: Path, reference: str) -> Path:
    digest = json.loads(tag_of(share, reference).read_text())["signature"]
    return share / "blobs" / "sha256" / digest.removeprefix("sha256:")


def test_a_signed_version_goes_from_one_machine_to_another(
    adz: Any, commit: Callable[..., Version], key: Keys, elsewhere: Any, tmp_path: Path
) -> None:
    version = commit()
    share = tmp_path / "share"
    result = adz("push", "team/sql", "--to", share, "--sign", key[0])
    assert result.code == 0, result.err
    elsewhere()
    result = adz("pull", "team/sql", "--from", share)
    assert result.code == 0, result.err
    assert "signed by release.pub.pem" in result.out
    registry = open_registry()
    pulled = registry.resolve("team/sql@1")
    assert pulled.digest == version.digest
    (attested,) = registry.attestations(pulled, "signature")
    assert attested["body"]["key"] == fingerprint(key[1])
    shown = adz("show", "team/sql").out
    assert f"release.pub.pem ({fingerprint(key[1])[:19]}" in shown, shown
    assert "dsseEnvelope" not in shown
    # It goes on to a third place as it came: the signature belongs to the version.
    assert adz("push", "team/sql", "--to", tmp_path / "third").code == 0
    first, third = (signature_of(tmp_path / s, "team/sql@1") for s in ("share", "third"))
    assert first.read_bytes() == third.read_bytes()
    # Pulling once more attests nothing twice.
    assert adz("pull", "team/sql", "--from", share).code == 0
    assert len(registry.attestations(pulled, "signature")) == 1


def test_signing_again_keeps_the_signature(
    adz: Any, commit: Callable[..., Version], key: Keys, tmp_path: Path
) -> None:
    commit()
    for _ in range(2):
        assert adz("push", "team/sql", "--to", tmp_path / "share", "--sign", key[0]).code == 0
    registry = open_registry()
    assert len(registry.attestations(registry.resolve("team/sql"), "signature")) == 1


def test_a_dry_run_signs_nothing(
    adz: Any, commit: Callable[..., Version], key: Keys, tmp_path: Path
) -> None:
    version = commit()
    result = adz("push", "team/sql", "--to", tmp_path / "share", "--sign", key[0], "--dry-run")
    assert result.code == 0, result.err
    assert open_registry().attestations(version, "signature") == []


def refuse(adz: Any, share: Path, message: str, *arguments: str | Path) -> None:
    result = adz("pull", "team/sql@1", "--from", share, *arguments)
    assert (result.code, result.out) == (3, ""), result.out
    assert message in result.err
    assert len(result.err.splitlines()) <= 2
    assert open_registry().names() == []


def test_what_is_not_signed_is_not_pulled(
    adz: Any, commit: Callable[..., Version], elsewhere: Any, tmp_path: Path
) -> None:
    commit()
    assert adz("push", "team/sql", "--to", tmp_path / "share").code == 0
    elsewhere()
    refuse(adz, tmp_path / "share", "team/sql@1 is not signed")
    # Nor under a name that demands nothing.
    refuse(adz, tmp_path / "share", "team/sql@1 is not signed", "--as", "mine")


def test_what_another_key_signed_is_not_pulled(
    adz: Any, commit: Callable[..., Version], other_key: Keys, elsewhere: Any, tmp_path: Path
) -> None:
    commit()
    assert adz("push", "team/sql", "--to", tmp_path / "share", "--sign", other_key[0]).code == 0
    elsewhere()
    refuse(adz, tmp_path / "share", "release.pub.pem: Key mismatch")


def test_a_signature_of_another_version_is_not_taken(
    adz: Any, commit: Callable[..., Version], key: Keys, elsewhere: Any, tmp_path: Path
) -> None:
    # The remote answers for number 1 with the signature of number 2, which has the same files.
    commit(), commit()
    share = tmp_path / "share"
    assert adz("push", "team/sql", "--all", "--to", share, "--sign", key[0]).code == 0
    first, second = (json.loads(tag_of(share, f"team/sql@{n}").read_text()) for n in (1, 2))
    swapped = json.dumps({**first, "signature": second["signature"]})
    tag_of(share, "team/sql@1").write_text(swapped)
    elsewhere()
    refuse(adz, share, "the signature is not one of team/sql@1: manifest.json differs")


def test_a_changed_signature_is_not_taken(
    adz: Any, commit: Callable[..., Version], key: Keys, elsewhere: Any, tmp_path: Path
) -> None:
    commit()
    share = tmp_path / "share"
    assert adz("push", "team/sql", "--to", share, "--sign", key[0]).code == 0
    bundle = json.loads(signature_of(share, "team/sql@1").read_text())
    sig = bundle["dsseEnvelope"]["signatures"][0]["sig"]
    other = "A" if sig[20] != "A" else "B"
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = sig[:20] + other + sig[21:]
    remote = open_remote(str(share))
    found = remote.find("team/sql", "1")
    assert found is not None
    remote.publish("team/sql", replace(found, signature=json.dumps(bundle).encode()), ["1"], "")
    elsewhere()
    refuse(adz, share, "the signature of team/sql@1 is not valid")


def test_a_given_key_is_demanded_without_a_policy(
    adz: Any,
    commit: Callable[..., Version],
    key: Keys,
    other_key: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit()
    share = tmp_path / "share"
    assert adz("push", "team/sql", "--to", share, "--sign", key[0]).code == 0
    monkeypatch.setenv("ADZ_HOME", str(tmp_path / "elsewhere"))
    refuse(adz, share, "other.pub.pem: Key mismatch", "--key", other_key[1])
    result = adz("pull", "team/sql", "--from", share, "--key", other_key[1], "--key", key[1])
    assert result.code == 0, result.err
    assert "signed by release.pub.pem" in result.out


def test_a_push_that_nobody_could_pull_is_refused(
    adz: Any,
    commit: Callable[..., Version],
    demand: Callable[..., None],
    other_key: Keys,
    tmp_path: Path,
) -> None:
    commit()
    demand()
    for arguments in ([], ["--sign", other_key[0]]):
        result = adz("push", "team/sql", "--to", tmp_path / "share", *arguments)
        assert result.code == 3
        assert "it has none by release.pub.pem" in result.err
    assert not list((tmp_path / "share").glob("names/**/_tags/*"))


def test_a_signed_name_is_not_taken_by_an_import_or_a_renamed_pull(
    adz: Any,
    commit: Callable[..., Version],
    demand: Callable[..., None],
    payload: Path,
    key: Keys,
    tmp_path: Path,
) -> None:
    commit("other")
    assert adz("push", "other", "--to", tmp_path / "share", "--sign", key[0]).code == 0
    demand()
    result = adz("import", payload, "--name", "team/sql")
    assert result.code == 3
    assert "the policy demands a signature of every version of team/sql" in result.err
    result = adz("pull", "other", "--from", tmp_path / "share", "--as", "team/sql")
    assert result.code == 3
    assert open_registry().names() == ["other"]
    assert adz("import", payload, "--name", "mine").code == 0


def test_a_broken_policy_lets_nothing_through(
    adz: Any, demand: Callable[..., None], payload: Path, tmp_path: Path
) -> None:
    demand("signature: {team/*: [x]}")
    result = adz("import", payload, "--name", "mine")
    assert result.code == 2
    assert "policy.yaml: unknown option signature (did you mean signatures?)" in result.err
    assert open_registry().names() == []


def test_a_version_is_served_when_it_is_signed(
    adz: Any,
    tiny_base: BaseRecord,
    commit_adapter: Any,
    demand: Callable[..., None],
    key: Keys,
    tmp_path: Path,
) -> None:
    """A version that was trained here, before the policy and before it was signed."""
    registry = open_registry()
    version = commit_adapter("team/sql")

    def ask() -> Version | None:
        return resolve_model(registry, tiny_base, "team/sql", lambda v: None)

    def listed() -> list[str]:
        return [model.id for model in list_models(registry, tiny_base, lambda v: None)]

    assert ask() == version
    demand()
    with pytest.raises(RequestError, match=r"demands a signature of team/sql@1") as caught:
        ask()
    assert caught.value.status == 422
    assert listed() == ["tiny"]
    demand("signatures: [")
    with pytest.raises(RequestError, match=r"policy\.yaml is malformed"):
        ask()
    demand()
    assert adz("push", "team/sql", "--to", tmp_path / "share", "--sign", key[0]).code == 0
    assert ask() == version
    assert listed() == ["tiny", "team/sql"]
    # A key that is no longer in the policy signs no more.
    (tmp_path / "new.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
    demand(f"signatures: {{team/*: [{tmp_path / 'new.pem'}]}}")
    with pytest.raises(RequestError, match=r"none by new\.pem"):
        ask()


def test_what_came_before_the_policy_is_verified_at_the_next_pull(
    adz: Any,
    commit: Callable[..., Version],
    key: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit()
    share = tmp_path / "share"
    assert adz("push", "team/sql", "--to", share, "--sign", key[0]).code == 0
    home = tmp_path / "elsewhere"
    monkeypatch.setenv("ADZ_HOME", str(home))
    assert adz("pull", "team/sql", "--from", share).code == 0
    registry = open_registry()
    version = registry.resolve("team/sql")
    assert registry.attestations(version, "signature") == []
    (home / "policy.yaml").write_text(f"signatures: {{team/*: [{key[1]}]}}\n")
    assert adz("pull", "team/sql", "--from", share).code == 0
    assert len(registry.attestations(version, "signature")) == 1


def test_a_signature_covers_what_is_known_of_the_base(
    commit: Callable[..., Version], key: Keys, payload: Path
) -> None:
    """What is known of the base is in the manifest, so a signature covers it."""
    version = commit()
    signature = sign_version(open_registry(), version, key[0])
    other = version.manifest.model_copy(update={"base": BaseLink(status="unknown", name="x")})
    with pytest.raises(AdzError, match=r"manifest\.json differs"):
        verify_signature(other.canonical(), payload, signature, [key[1]])
