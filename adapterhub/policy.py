"""What an organisation demands of names: `$ADZ_HOME/policy.yaml`.

    signatures:
      team/*: [keys/release.pem]        # public keys, relative to the file's folder
    quotas:
      team/*: {versions: 50, size: 10GB}

A pattern is compared with the whole name; `*` stands for any characters, `/` too. Of several
patterns that match, the first in the file decides. A file that cannot be read as a policy is an
error for whoever needs it: without knowing what is demanded nothing is let through.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from adapterhub.config import read_recipe, validate
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.home import adz_home
from adapterhub.manifest import Version, sha256_of

if TYPE_CHECKING:
    from adapterhub.protocols import Registry

T = TypeVar("T")

SIGNATURE = "signature"
"""The kind of an attestation that says whose key signed; its `key` is a fingerprint."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?i?B)")
_PREFIXES = " kMGT"
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----")


def _parse_size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise ValueError("a size is bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    number, unit = match[1], match[2]
    step = 1024 if "i" in unit else 1000
    return int(float(number) * step ** (_PREFIXES.index(unit[0]) if unit != "B" else 0))


class Quota(BaseModel):
    """How much a name may hold. None is no limit; `size` is in bytes, of the live versions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: int | None = Field(None, ge=0)
    size: Annotated[int | None, BeforeValidator(_parse_size)] = Field(None, ge=0)


class _Sections(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    signatures: dict[str, tuple[str, ...]] = {}
    quotas: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Policy:
    """The demands by pattern, in the order of the file."""

    signatures: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    quotas: Mapping[str, Quota] = field(default_factory=dict)

    def quota_of(self, name: str) -> Quota | None:
        """How much `name` may hold, or None where nothing limits it."""
        return _first_match(self.quotas, name)

    def check_signed(self, registry: Registry, version: Version) -> None:
        """Raise AdzError (exit code 3) when `version` must be signed and no attestation in
        `registry` says that one of the keys signed it."""
        keys = self.keys_of(version.name)
        if not keys:
            return
        attested = registry.attestations(version, SIGNATURE)
        signers = {found["body"].get("key") for found in attested}
        if not signers & {fingerprint(key) for key in keys}:
            raise AdzError(
                f"the policy demands a signature of {version.reference}, and it has none by "
                + " or ".join(key.name for key in keys),
                f"adz push {version.reference} --to URL --sign KEY.pem signs it",
                exit_code=EXIT_VERIFICATION,
            )

    def check_unsigned(self, name: str) -> None:
        """Raise AdzError (exit code 3) when versions of `name` must be signed: what comes from
        elsewhere under a new name has no signature of that name."""
        if self.keys_of(name):
            raise AdzError(
                f"the policy demands a signature of every version of {name}, and nobody signed "
                "this as one",
                "take another name, or pull a version that is signed",
                exit_code=EXIT_VERIFICATION,
            )

    def keys_of(self, name: str) -> tuple[Path, ...]:
        """The public keys of which one must have signed every version of `name`; empty where
        none is demanded. Raises AdzError when a key file is missing."""
        keys = _first_match(self.signatures, name) or ()
        for key in keys:
            if not key.is_file():
                raise AdzError(
                    f"the key {key}, which the policy demands for {name}, is missing",
                    "put the public key there, or change policy.yaml",
                )
        return keys


def load_policy(home: Path | None = None) -> Policy:
    """The policy of `home`, by default of ADZ_HOME; without a file nothing is demanded.

    Raises a usage error for a file that is not a policy, with the place and the nearest name.
    """
    file = (home or adz_home()) / "policy.yaml"
    # A link to nowhere is no missing file: it must not switch the policy off.
    if not os.path.lexists(file):
        return Policy()
    try:
        found = file.stat()
        return _parse(file, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror}") from error
    except AdzError as error:
        message = error.message if str(file) in error.message else f"{file}: {error.message}"
        raise usage_error(message, error.hint) from error


def fingerprint(key: Path) -> str:
    """The sha256 of a public key in PEM form: of its DER bytes, as `openssl pkey -pubin
    -outform DER | sha256sum` shows it. Raises AdzError for anything else."""
    try:
        text = key.read_text(encoding="ascii")
        body = _PEM.fullmatch(text.strip())
        der = base64.b64decode("".join(body[1].split()), validate=True) if body else b""
    except ValueError:
        der = b""
    if not der:
        raise AdzError(
            f"{key} is not a public key in PEM form",
            "openssl pkey -in KEY.pem -pubout -out PUB.pem",
        )
    return sha256_of(der)


@lru_cache(maxsize=8)
def _parse(file: Path, *_signature: int) -> Policy:
    # Asked for at every request of a server: read again only when the file is another one.
    values = read_recipe(file)
    _refuse_repeated_keys(yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader))
    sections = validate(_Sections, values)
    for pattern, keys in sections.signatures.items():
        if not keys:
            raise usage_error(f"signatures.{pattern} names no key", "give the public key's file")
    quotas = {
        pattern: validate(Quota, quota, f"quotas.{pattern}")
        for pattern, quota in sections.quotas.items()
    }
    signatures = {
        pattern: tuple(file.parent / Path(key).expanduser() for key in keys)
        for pattern, keys in sections.signatures.items()
    }
    return Policy(signatures, quotas)


def _refuse_repeated_keys(node: Any) -> None:
    # YAML's reader keeps the last of two: one demand would silently replace the other.
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise usage_error(f"{key.value} is there twice, again at line {line}")
            seen.add(key.value)
            _refuse_repeated_keys(value)


def _first_match(values: Mapping[str, T], name: str) -> T | None:
    for pattern, value in values.items():
        if fnmatchcase(name, pattern):
            return value
    return None
