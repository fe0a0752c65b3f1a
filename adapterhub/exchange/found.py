"""Checking what a remote says a version is, before any of its files is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.manifest import (
    FileRecord,
    Manifest,
    canonical_json,
    payload_digest,
    sha256_of,
)
from adapterhub.protocols import Remote, RemoteFile, RemoteVersion
from adapterhub.reference import check_file_name, check_name

ARTIFACTS = "artifacts/"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# What a terminal would obey; lines and tabs are text.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Found:
    """A version at a remote whose manifest holds together; its files were not read yet."""

    remote_version: RemoteVersion
    manifest: Manifest
    digest: str

    @property
    def reference(self) -> str:
        """`name@number`."""
        return f"{self.manifest.name}@{self.manifest.version}"


def find_version(remote: Remote, name: str, tag: str, bounds: Bounds) -> Found | None:
    """The version that a number or an alias means at `remote`, or None.

    Raises AdzError (exit code 3) when it is another one than was asked for, is no manifest, or
    names files that the bounds or the allowlist do not admit.
    """
    answer = remote.find(name, tag)
    if answer is None:
        return None
    manifest = check_manifest(answer.manifest, name, tag, remote.url, bounds)
    return Found(answer, manifest, sha256_of(answer.manifest))


def check_manifest(body: bytes, name: str, tag: str, where: str, bounds: Bounds) -> Manifest:
    """The manifest with these bytes, if they can be those of `name@tag`; see `find_version`."""
    asked = f"{name}@{tag}"
    manifest = _parse(body, asked, where, bounds)
    number_differs = tag.isdigit() and manifest.version != int(tag)
    if manifest.name != name or manifest.version < 1 or number_differs:
        raise _wrong(
            f"{where} answers {asked} with the manifest of {manifest.name}@{manifest.version}"
        )
    _check_words(manifest, asked, where)
    _check_files(manifest, asked, where, bounds)
    return manifest


def remote_files(manifest: Manifest) -> list[RemoteFile]:
    """The files of a version as remotes name them."""
    files = [RemoteFile(name, record) for name, record in manifest.files.items()]
    artifacts = manifest.artifacts.items()
    return files + [RemoteFile(ARTIFACTS + name, record) for name, record in artifacts]


def _parse(body: bytes, asked: str, where: str, bounds: Bounds) -> Manifest:
    if len(body) > bounds.manifest_bytes:
        raise _wrong(f"{where}: the manifest of {asked} is larger than 1 MiB")
    try:
        value = json.loads(body)
        # One value, one way to write it: otherwise two readers could see two manifests.
        if canonical_json(value) != body:
            raise _wrong(f"{where}: the manifest of {asked} is not canonical JSON")
        _refuse_newer(value, asked)
        if any(_CONTROL.search(text) for text in _texts(value)):
            raise _wrong(f"{where}: the manifest of {asked} holds control characters")
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _wrong(f"{where}: the manifest of {asked}: {place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{where}: the manifest of {asked} is no JSON") from error


def _refuse_newer(value: Any, asked: str) -> None:
    known = Manifest.model_fields["format"].default
    form = value.get("format", 1) if isinstance(value, Mapping) else None
    if isinstance(form, int) and form > known:
        raise AdzError(
            f"{asked} was made by a newer adapterhub: its manifest has format {form}",
            "upgrade adapterhub",
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _check_words(manifest: Manifest, asked: str, where: str) -> None:
    """Names of a stranger are printed, listed and looked up here: they are names or nothing."""
    words = [manifest.method, manifest.quantizer, manifest.objective]
    for word in words:
        if word is not None and not _WORD.fullmatch(word):
            raise _wrong(f"{where}: {asked}: {word[:64]!r} is not a component's name")
    names = [manifest.base.name, *(parent.name for parent in manifest.parents)]
    digests = [parent.digest for parent in manifest.parents]
    for name in filter(None, names):
        try:
            check_name(name)
        except AdzError as error:
            raise _wrong(f"{where}: {asked}: {error.message[:200]}") from error
    if not all(_DIGEST.fullmatch(digest) for digest in digests):
        raise _wrong(f"{where}: {asked}: a parent has no valid digest")


def _check_files(manifest: Manifest, asked: str, where: str, bounds: Bounds) -> None:
    files = remote_files(manifest)
    for file in files:
        try:
            check_file_name(file.name)
        except AdzError as error:
            raise _wrong(f"{where}: {asked}: {error.message}") from error
        _check_record(file.name, file.record, asked, where)
    if len(files) > bounds.files:
        raise _wrong(f"{asked} has {len(files)} files, more than {bounds.files}")
    size = sum(file.record.size for file in files)
    if size > bounds.version_bytes:
        raise AdzError(
            f"{asked} has {size} bytes, more than {bounds.version_bytes}",
            "give a higher --max-bytes if that is right",
            exit_code=EXIT_VERIFICATION,
        )
    if not manifest.files or manifest.payload != payload_digest(manifest.files):
        raise _wrong(f"{where}: {asked}: its payload digest is not that of its files")


def _check_record(name: str, record: FileRecord, asked: str, where: str) -> None:
    if not _DIGEST.fullmatch(record.sha256) or record.size < 0:
        raise _wrong(f"{where}: {asked}: {name} has no valid digest or size")


def _wrong(message: str) -> AdzError:
    return AdzError(message, "nothing was stored", exit_code=EXIT_VERIFICATION)
