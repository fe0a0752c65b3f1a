"""Signatures on the way: which one goes along with a push, and what a pull must find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.found import Found
from adapterhub.manifest import Version
from adapterhub.policy import SIGNATURE, load_policy
from adapterhub.protocols import Registry
from adapterhub.signing.signature import (
    attestation,
    public_fingerprint,
    sign_version,
    stored_signature,
    verify_signature,
)


def signature_to_push(registry: Registry, version: Version, key: Path | None) -> bytes | None:
    """The signature by the private key, or the last one that is known here, or None.

    A signature is made once and kept as an attestation. Raises AdzError (exit code 3) where the
    policy demands one by another key: nobody who has the same policy could pull the version.
    """
    bundle = _signature_by(registry, version, key) if key else stored_signature(registry, version)
    load_policy().check_signed(registry, version)
    return bundle


@dataclass(frozen=True, slots=True)
class Demand:
    """The keys of which a pulled version needs a signature: one of the policy's, where it names
    any, and one of those that the user gave, where there are any."""

    policy: tuple[Path, ...]
    given: tuple[Path, ...]

    @classmethod
    def of(cls, name: str, given: Sequence[Path], rename: str | None) -> Demand:
        """Raises AdzError (exit code 3) where `rename` would take a version over into a name
        whose versions must be signed: the signature is one of the old name."""
        policy = load_policy()
        if rename is not None:
            policy.check_unsigned(rename)
        return cls(policy.keys_of(name), tuple(given))

    def missing(self, registry: Registry, version: Version) -> bool:
        """Whether a version that is here lacks an attestation of what is demanded."""
        if self.given:
            return True
        try:
            load_policy().check_signed(registry, version)
        except AdzError:
            return True
        return False

    def verify(self, found: Found, payload: Path) -> list[Mapping[str, Any]]:
        """The attestations to record. Raises AdzError (exit code 3) where one is demanded and
        the signature that came is not it, or none came."""
        remote = found.remote_version
        bodies: list[Mapping[str, Any]] = []
        for keys in (self.policy, self.given):
            if not keys:
                continue
            if remote.signature is None:
                raise AdzError(
                    f"{found.reference} is not signed, and a signature by "
                    f"{' or '.join(key.name for key in keys)} is demanded",
                    "nothing was stored; ask who pushed it: adz push --sign KEY.pem",
                    exit_code=EXIT_VERIFICATION,
                )
            body = verify_signature(remote.manifest, payload, remote.signature, keys)
            if body not in bodies:
                bodies.append(body)
        return bodies


def record(registry: Registry, version: Version, bodies: Sequence[Mapping[str, Any]]) -> None:
    """Attest what was verified, unless the same is attested already."""
    known = [found["body"] for found in registry.attestations(version, SIGNATURE)]
    for body in bodies:
        if body not in known:
            registry.attest(version, SIGNATURE, body)


def _signature_by(registry: Registry, version: Version, key: Path) -> bytes:
    signer = public_fingerprint(key)
    for found in registry.attestations(version, SIGNATURE):
        if found["body"]["key"] == signer:
            return str(found["body"]["bundle"]).encode()
    signature = sign_version(registry, version, key)
    registry.attest(version, SIGNATURE, attestation(signer, key.name, signature))
    return signature
