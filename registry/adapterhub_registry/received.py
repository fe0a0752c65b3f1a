"""Manifests of versions that were made elsewhere: read strictly, and compared with the files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord, Manifest, canonical_json, payload_digest
from adapterhub.reference import check_file_name, check_name

MAX_MANIFEST = 2**20
MAX_NUMBER = 10**9

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,127}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


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


def require_files(
    manifest: Manifest, expected: Mapping[str, FileRecord], files: Mapping[str, FileRecord]
) -> None:
    """Refuse files that are not those of the manifest (AdzError, exit code 3)."""
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


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    hint = " (was it made by a newer adapterhub?)" if first["type"] == "extra_forbidden" else ""
    return f"{place}: {first['msg']}{hint}" if place else str(first["msg"])


def _refuse(reason: str) -> AdzError:
    return AdzError(f"the manifest is refused: {reason}", exit_code=EXIT_VERIFICATION)
