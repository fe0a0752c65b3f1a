"""Where bases come from, one file each: turn what a user gave into a directory.

Every source yields a `Located`: a directory that transformers loads, without remote code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.errors import usage_error
from adapterhub.protocols import Progress
from adapterhub.reference import is_directory_reference

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Located:
    """A base in a directory. `source` is what the user gave, with paths made absolute;
    `derivation` says how the directory was made from something else, if it was."""

    source: str
    directory: Path
    derivation: dict[str, Any] | None = None


def normalise_source(source: str) -> str:
    """What the user gave, with paths made absolute: equal sources give equal texts."""
    path = Path(source).expanduser()
    if is_directory_reference(source) or (not source.startswith("pkg:") and path.exists()):
        return str(path.absolute())
    return source


def locate(source: str, progress: Progress) -> Located:
    """Find, download or convert what a normalised source names; AdzError says what is wrong."""
    if source.startswith("pkg:"):
        from adapterhub.bases.sources.package import locate_package

        found = locate_package(source.removeprefix("pkg:"))
        return _locate_path(found, source, progress)
    if Path(source).is_absolute():
        return _locate_path(Path(source), source, progress)
    if _HUB_ID.fullmatch(source):
        from adapterhub.bases.sources.hub import download

        return Located(source, download(source, progress))
    raise usage_error(
        f"{source!r} is not a source of a base model",
        "give a directory, a .gguf file, a Hugging Face id, or pkg:NAME",
    )


def _locate_path(path: Path, source: str, progress: Progress) -> Located:
    if path.suffix.lower() == ".gguf":
        from adapterhub.bases.sources.gguf import dequantise

        directory, derivation = dequantise(path, progress)
        return Located(source, directory, derivation)
    from adapterhub.bases.sources.directory import check_directory

    return Located(source, check_directory(path))
