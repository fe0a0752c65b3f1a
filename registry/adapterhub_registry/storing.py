"""Adding versions: one that was made here, or one that was received with its manifest."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord, Manifest, canonical_json, payload_digest, sha256_of
from adapterhub.reference import check_file_name, check_name
from adapterhub_registry import bases, lookup, quotas
from adapterhub_registry.database import Change
from adapterhub_registry.storage import Storage

MAX_MANIFEST = 2**20
MAX_NUMBER = 10**9

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,127}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def add_next(
    change: Change, storage: Storage, draft: Manifest, staging: Path
) -> tuple[str, Manifest]:
    """Give a staged draft the next number of its name and store it; return digest and manifest.

    The blobs move in under the write lock, so `collect` cannot take one in between.
    """
    name = draft.name
    bases.refuse_name(change.connection, name)
    number = change.connection.execute(
        "SELECT ifnull(max(number), 0) + 1 FROM versions WHERE name = ?", (name,)
    ).fetchone()[0]
    manifest = draft.model_copy(update={"version": number})
    quotas.check(change.connection, storage.home, name, versions=1, size=_size(manifest))
    storage.blobs.publish(_staged(staging, manifest))
    body = manifest.canonical()
    digest = storage.blobs.put(body, staging)
    change.record("commit", name, version=number, body={"digest": digest}, manifest=body)
    return digest, manifest


def add_received(
    change: Change, storage: Storage, body: bytes, manifest: Manifest, staging: Path, source: str
) -> None:
    """Store a staged version under the number that it has. What is here already stays."""
    bases.refuse_name(change.connection, manifest.name)
    if is_here(change.connection, manifest, sha256_of(body)):
        return
    size = _size(manifest)
    quotas.check(change.connection, storage.home, manifest.name, versions=1, size=size)
    storage.blobs.publish(_staged(staging, manifest))
    digest = storage.blobs.put(body, staging)
    change.record(
        "pull",
        manifest.name,
        version=manifest.version,
        body={"digest": digest, "source": source},
        manifest=body,
    )


def is_here(connection: sqlite3.Connection, manifest: Manifest, digest: str) -> bool:
    """Whether that very version is live; another one of the same number is refused."""
    row = lookup.with_number(connection, manifest.name, manifest.version)
    if row is not None and row["digest"] != digest:
        raise AdzError(
            f"{manifest.name}@{manifest.version} is another version here",
            f"take it under another name: adz pull {manifest.name}@{manifest.version} --as OTHER",
            exit_code=EXIT_VERIFICATION,
        )
    return row is not None and row["state"] == "live"


def parse_manifest(body: bytes) -> Manifest:
    """The manifest of a version that was made elsewhere; AdzError (exit code 3) for one that
    no registry wrote."""
    if len(body) > MAX_MANIFEST:
        raise _refuse(f"it has {len(body)} bytes, at most {MAX_MANIFEST} are read")
    try:
        value = json.loads(body)
        canonical = canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise _refuse("it is not JSON") from error
    # One value has one digest, and no parser can find another value in it.
    if canonical != body:
        raise _refuse("it is not in canonical form")
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        raise _refuse(_first_problem(error)) from error
    _check_facts(manifest)
    return manifest


def require_files(manifest: Manifest, files: Mapping[str, FileRecord], where: str) -> None:
    """Refuse staged files that are not those of the manifest. where: `files` or `artifacts`."""
    expected: Mapping[str, FileRecord] = getattr(manifest, where)
    for name in sorted(expected.keys() | files.keys()):
        if expected.get(name) != files.get(name):
            problem = "is missing" if name not in files else "is not what its manifest names"
            raise AdzError(
                f"{manifest.name}@{manifest.version}: {name} {problem}",
                "pull it again; if that does not help, what was pushed is damaged",
                exit_code=EXIT_VERIFICATION,
            )


def _check_facts(manifest: Manifest) -> None:
    """What is shown on terminals or used as a path must be plain, whoever wrote it."""
    check_name(manifest.name)
    if not 1 <= manifest.version <= MAX_NUMBER:
        raise _refuse(f"its version is {manifest.version}")
    if not _TIME.fullmatch(manifest.created):
        raise _refuse("its time of creation is not UTC in ISO 8601")
    words: dict[str, Any] = {
        "method": manifest.method,
        "quantizer": manifest.quantizer,
        "objective": manifest.objective,
        "base's name": manifest.base.name,
    }
    for fact, word in words.items():
        if word is not None and not _WORD.fullmatch(word):
            raise _refuse(f"its {fact} is {word!r}")
    for name in [*manifest.files, *manifest.artifacts]:
        check_file_name(name)
    if payload_digest(manifest.files) != manifest.payload:
        raise _refuse("its payload digest does not match its files")


def _size(manifest: Manifest) -> int:
    return sum(record.size for record in manifest.files.values())


def _staged(staging: Path, manifest: Manifest) -> Iterator[tuple[Path, str]]:
    for folder, records in (("payload", manifest.files), ("artifacts", manifest.artifacts)):
        for name, record in records.items():
            yield staging / folder / name, record.sha256


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    hint = " (was it made by a newer adapterhub?)" if first["type"] == "extra_forbidden" else ""
    return f"{place}: {first['msg']}{hint}" if place else str(first["msg"])


def _refuse(reason: str) -> AdzError:
    return AdzError(f"the manifest is refused: {reason}", exit_code=EXIT_VERIFICATION)
