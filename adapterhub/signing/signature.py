"""Signing a version and checking a signature, both offline, with elliptic-curve keys.

Signed is the directory that `adz export` writes: the payload and `manifest.json`. The manifest
holds name, number and every digest, so a signature of one version is no signature of another
one, even of the same bytes. `model_signing verify key` checks the same file on that directory.
The attestation of the kind `signature` keeps the bundle, so that it goes along at the next push.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.export.directory import MANIFEST, manifest_text
from adapterhub.manifest import Manifest, Version, sha256_of
from adapterhub.policy import SIGNATURE, fingerprint
from adapterhub.protocols import Registry
from adapterhub.staging import home_staging, staging_folder

# What `adz export` may write beside the signed files. Its bytes decide nothing: the manifest
# holds the digests of a version's own README and artifacts.
_UNSIGNED = ("artifacts", "model.sig")
_CARD = "README.md"
_MAX_BYTES = 2**20


def sign_version(registry: Registry, version: Version, key: Path) -> bytes:
    """The signature of a version by a private key, a PEM file without a password, as a Sigstore
    bundle. Raises AdzError for a key that cannot sign."""
    with _needing_the_extra():
        from model_signing import hashing, signing
    config = signing.Config()
    with _reading(key):
        config.use_elliptic_key_signer(private_key=key)
    manifest = version.manifest
    ignored = [*_UNSIGNED, *([] if _CARD in manifest.files else [_CARD])]
    with staging_folder(home_staging()) as folder:
        directory = folder / "signed"
        for name, record in manifest.files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            if not registry.copy_blob(record, directory / name):
                raise AdzError(
                    f"the stored file {name} of {version.reference} is missing or damaged",
                    "run 'adz fsck'",
                    exit_code=EXIT_VERIFICATION,
                )
        (directory / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
        config.set_hashing_config(_hashing(hashing, ignored))
        config.sign(directory, folder / "bundle")
        return (folder / "bundle").read_bytes()


def verify_signature(
    manifest: bytes, payload: Path, signature: bytes, keys: Sequence[Path]
) -> dict[str, Any]:
    """Check that one of the public keys signed this manifest with the files below `payload`.

    Returns the attestation's body: the key's fingerprint and file name, and the bundle. Raises
    AdzError (exit code 3) when the signature is another one's, of other files, or none at all.
    """
    described = Manifest.model_validate_json(manifest)
    reference = f"{described.name}@{described.version}"
    signed = _statement(signature, reference)
    _check_coverage(signed, described, reference)
    by_print = {fingerprint(key): key for key in keys}
    with staging_folder(home_staging()) as folder:
        directory = folder / "signed"
        _link(payload, directory)
        (directory / MANIFEST).write_text(manifest_text(described), encoding="utf-8")
        (folder / "bundle").write_bytes(signature)
        problems = []
        for digest, key in by_print.items():
            problem = _problem(directory, folder / "bundle", key)
            if problem is None:
                return attestation(digest, key.name, signature)
            problems.append(f"{key.name}: {problem}")
    raise AdzError(
        f"the signature of {reference} is not valid: {'; '.join(problems)}",
        "nothing was stored; ask who signs for a signature with this key",
        exit_code=EXIT_VERIFICATION,
    )


def attestation(key: str, file: str, signature: bytes) -> dict[str, Any]:
    """The body of an attestation: `key` is the fingerprint of the public key, `file` a hint."""
    return {"key": key, "file": file, "bundle": signature.decode()}


def stored_signature(registry: Registry, version: Version) -> bytes | None:
    """The signature that was made or verified here last, or None."""
    found = registry.attestations(version, SIGNATURE)
    return str(found[-1]["body"]["bundle"]).encode() if found else None


def public_fingerprint(key: Path) -> str:
    """The fingerprint of the public key that belongs to a private one; see `policy`."""
    with _needing_the_extra():
        from cryptography.hazmat.primitives import serialization
    with _reading(key):
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    return sha256_of(
        private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _problem(directory: Path, bundle: Path, key: Path) -> str | None:
    with _needing_the_extra():
        from model_signing import hashing, verifying
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_hashing(hashing, ()))
        config.verify(directory, bundle)
    except Exception as error:
        # What it raises for a bundle that is malformed is not documented: whatever it is, the
        # signature was not verified. Of two digests it prints the bytes.
        return _first_line(error).split(": Expected")[0].replace("\\'", "'")
    return None


def _hashing(hashing: Any, ignored: Sequence[str]) -> Any:
    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=ignored, ignore_git_paths=False)


def _statement(signature: bytes, reference: str) -> dict[str, str]:
    """File -> sha256 as the signed statement lists them. Not trusted before the signature is."""
    try:
        if len(signature) > _MAX_BYTES:
            raise ValueError("it is larger than 1 MiB")
        bundle = json.loads(signature)
        # Without the hint model-signing takes signatures of a form that it had before 1.0.
        if not bundle["verificationMaterial"]["publicKey"]["hint"]:
            raise ValueError("it does not name its key")
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        predicate = statement["predicate"]
        if predicate["serialization"]["hash_type"] != "sha256":
            raise ValueError("it is not over sha256 digests")
        return {
            found["name"]: "sha256:" + found["digest"]
            for found in predicate["resources"]
            if found["algorithm"] == "sha256"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdzError(
            f"the signature of {reference} is malformed: {_first_line(error)}",
            "nothing was stored; ask who signs to push it again",
            exit_code=EXIT_VERIFICATION,
        ) from error


def _check_coverage(signed: Mapping[str, str], manifest: Manifest, reference: str) -> None:
    """A signature may say which files to ignore: all that matter must be in it, as they are."""
    wanted = {name: record.sha256 for name, record in manifest.files.items()}
    wanted[MANIFEST] = sha256_of(manifest_text(manifest).encode())
    if signed != wanted:
        names = sorted(wanted.keys() | signed.keys())
        others = [name for name in names if signed.get(name) != wanted.get(name)]
        raise AdzError(
            f"the signature is not one of {reference}: {', '.join(others)[:200]} differs from "
            "what was signed",
            "nothing was stored; ask who signs for a signature of this version",
            exit_code=EXIT_VERIFICATION,
        )


def _link(source: Path, target: Path) -> None:
    """The files below `source` once more below `target`, without a copy."""
    for folder, _, names in os.walk(source):
        inside = target / Path(folder).relative_to(source)
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            (inside / name).hardlink_to(Path(folder, name))


@contextmanager
def _reading(key: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AdzError(f"the key {key} cannot be read: {error.strerror}") from error
    except Exception as error:
        # Each kind of key that does not fit raises something else.
        raise AdzError(
            f"{key} is not a private elliptic-curve key without a password: {_first_line(error)}",
            "make one: openssl ecparam -genkey -name prime256v1 -noout -out KEY.pem",
        ) from error


@contextmanager
def _needing_the_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise AdzError(
            f"signatures need {error.name or 'model_signing'}, which is not installed",
            "pip install 'adapterhub[sign]'",
        ) from error


def _first_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
