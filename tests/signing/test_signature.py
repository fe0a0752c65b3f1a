"""Signing and verifying, with the model_signing command as the independent signer and reader."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.plugins import open_registry
from adapterhub.policy import fingerprint
from adapterhub.signing.signature import public_fingerprint, sign_version, verify_signature

Keys = tuple[Path, Path]


def model_signing(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def verify(version: Version, payload: Path, signature: bytes, *keys: Path) -> dict[str, Any]:
    return verify_signature(version.manifest.canonical(), payload, signature, keys)


@pytest.mark.parametrize(("curve", "with_card"), [("prime256v1", True), ("secp384r1", False)])
def test_the_independent_tool_verifies_an_export(
    adz: Any,
    commit: Callable[..., Version],
    payload: Path,
    make_key: Callable[..., Keys],
    tmp_path: Path,
    curve: str,
    with_card: bool,
) -> None:
    private, public = make_key(curve=curve)
    if with_card:
        (payload / "README.md").write_text("# a card of its own")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "curve.csv").write_text("1")
    signature = sign_version(open_registry(), commit(), private)
    out = tmp_path / "out"
    assert adz("export", "team/sql@1", out, "--with-artifacts").code == 0
    (tmp_path / "model.sig").write_bytes(signature)
    arguments = ["verify", "key", out, "--signature", tmp_path / "model.sig"]
    done = model_signing(*arguments, "--public_key", public)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    for name in ["manifest.json", *(["README.md"] * with_card)]:
        before = (out / name).read_text()
        (out / name).write_text(before + " ")
        assert model_signing(*arguments, "--public_key", public).returncode == 1
        (out / name).write_text(before)


def test_a_signature_of_the_independent_tool_is_verified(
    adz: Any, commit: Callable[..., Version], payload: Path, key: Keys, tmp_path: Path
) -> None:
    version = commit()
    assert adz("export", "team/sql@1", tmp_path / "out").code == 0
    # The card that the export wrote is no part of the version.
    (tmp_path / "out" / "README.md").unlink(missing_ok=True)
    arguments = ["sign", "key", tmp_path / "out", "--signature", tmp_path / "model.sig"]
    done = model_signing(*arguments, "--private_key", key[0])
    assert done.returncode == 0, done.stdout + done.stderr
    body = verify(version, payload, (tmp_path / "model.sig").read_bytes(), key[1])
    assert body["key"] == fingerprint(key[1])


def test_the_attestation_names_the_key_that_signed(
    commit: Callable[..., Version], payload: Path, key: Keys, other_key: Keys
) -> None:
    version = commit()
    signature = sign_version(open_registry(), version, key[0])
    body = verify(version, payload, signature, other_key[1], key[1])
    assert body == {
        "key": fingerprint(key[1]),
        "file": "release.pub.pem",
        "bundle": signature.decode(),
    }
    assert fingerprint(key[1]) == public_fingerprint(key[0]) != fingerprint(other_key[1])
    shown = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", key[1], "-outform", "DER"],
        capture_output=True,
        check=True,
    )
    digest = subprocess.run(["sha256sum"], input=shown.stdout, capture_output=True, check=True)
    assert digest.stdout.decode().split()[0] == fingerprint(key[1]).removeprefix("sha256:")


def flipped(signature: bytes, *path: str) -> bytes:
    """The bundle with one byte changed in a base64 field."""
    bundle = json.loads(signature)
    place = bundle["dsseEnvelope"]
    for part in path[:-1]:
        place = place[int(part) if part.isdigit() else part]
    data = bytearray(base64.b64decode(place[path[-1]]))
    data[len(data) // 2] ^= 1
    place[path[-1]] = base64.b64encode(bytes(data)).decode()
    return json.dumps(bundle).encode()


@pytest.mark.parametrize(
    "forge",
    [
        lambda signature: flipped(signature, "payload"),
        lambda signature: flipped(signature, "signatures", "0", "sig"),
        lambda signature: signature[:-10],
        lambda signature: b"",
        lambda signature: b"{}",
        lambda signature: b"[" * 100_000,
        lambda signature: b" " * 2**21 + signature,
        lambda signature: signature.replace(b'"hint"', b'"hunt"'),
        lambda signature: re.sub(rb'"hint": ?"[0-9a-f]+"', b'"hint": ""', signature),
    ],
)
def test_a_forged_signature_is_refused(
    commit: Callable[..., Version],
    payload: Path,
    key: Keys,
    forge: Callable[[bytes], bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    version = commit()
    signature = forge(sign_version(open_registry(), version, key[0]))
    with pytest.raises(AdzError, match=r"the signature .*team/sql@1") as e:
        verify(version, payload, signature, key[1])
    assert e.value.exit_code == 3
    assert "\n" not in str(e.value)
    assert capfd.readouterr().out == ""


def test_a_signature_by_another_key_is_refused(
    commit: Callable[..., Version], payload: Path, key: Keys, other_key: Keys
) -> None:
    version = commit()
    signature = sign_version(open_registry(), version, other_key[0])
    with pytest.raises(AdzError, match=r"is not valid: release\.pub\.pem: Key mismatch") as caught:
        verify(version, payload, signature, key[1])
    assert caught.value.exit_code == 3


def test_a_signature_of_another_version_is_refused(
    commit: Callable[..., Version], payload: Path, key: Keys
) -> None:
    # The same bytes under the next number, another name, and with other words about them.
    versions = [commit(), commit(), commit("team/other"), commit(recipe={"seed": 1})]
    signature = sign_version(open_registry(), versions[0], key[0])
    verify(versions[0], payload, signature, key[1])
    for version in versions[1:]:
        with pytest.raises(AdzError, match=r"not one of .*: manifest\.json differs from"):
            verify(version, payload, signature, key[1])


def test_other_files_are_refused(commit: Callable[..., Version], payload: Path, key: Keys) -> None:
    version = commit()
    signature = sign_version(open_registry(), version, key[0])
    weights = payload / "adapter_model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(AdzError, match=r"Hash mismatch for 'adapter_model\.safetensors'"):
        verify(version, payload, signature, key[1])
    weights.write_bytes(before)
    (payload / ".gitignore").write_text("more")
    with pytest.raises(AdzError, match="Extra files"):
        verify(version, payload, signature, key[1])


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "manifest.json"])
def test_a_signature_that_ignores_a_file_is_refused(
    adz: Any, commit: Callable[..., Version], payload: Path, key: Keys, tmp_path: Path, name: str
) -> None:
    version = commit()
    out = tmp_path / "out"
    adz("export", "team/sql@1", out)
    (out / "README.md").unlink(missing_ok=True)
    done = model_signing(
        "sign", "key", out, "--signature", tmp_path / "model.sig", "--private_key", key[0],
        "--ignore-paths", out / name,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(AdzError) as caught:
        verify(version, payload, (tmp_path / "model.sig").read_bytes(), key[1])
    assert caught.value.exit_code == 3
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), ("x", "is not a private elliptic-curve key")],
)
def test_a_key_that_cannot_sign(
    commit: Callable[..., Version], tmp_path: Path, content: str | None, message: str
) -> None:
    key = tmp_path / "key.pem"
    if content:
        key.write_text(content)
    with pytest.raises(AdzError, match=message):
        sign_version(open_registry(), commit(), key)


@pytest.mark.parametrize("algorithm", ["RSA", "ED25519", "secp256k1"])
def test_keys_of_other_kinds_are_refused(
    commit: Callable[..., Version], tmp_path: Path, algorithm: str
) -> None:
    key = tmp_path / "key.pem"
    chosen = ["-algorithm", algorithm]
    if algorithm == "secp256k1":
        chosen = ["-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{algorithm}"]
    command = ["openssl", "genpkey", *chosen, "-out", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(AdzError, match="is not a private elliptic-curve key"):
        sign_version(open_registry(), commit(), key)


def test_a_private_key_is_no_public_one(
    commit: Callable[..., Version], payload: Path, key: Keys
) -> None:
    version = commit()
    signature = sign_version(open_registry(), version, key[0])
    with pytest.raises(AdzError, match="is not a public key in PEM form"):
        verify(version, payload, signature, key[0])


def test_a_missing_extra_says_what_to_install(
    commit: Callable[..., Version], key: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = commit()
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(AdzError) as caught:
        sign_version(open_registry(), version, key[0])
    assert caught.value.hint == "pip install 'adapterhub[sign]'"
