"""Finding adapters and bases below folders. Reads names only, and follows no link to a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.errors import usage_error
from adapterhub.home import adz_home

DEPTH = 16
"""Folders below a root. The cache of a hub in a home in a shared folder has about ten."""

PICKLES = ("adapter_model.bin", "adapter_model.pt")
_SKIPPED = frozenset({".git", ".locks", "__pycache__", "node_modules", "site-packages", "wandb"})
_BASE_WEIGHTS = ("model", "pytorch_model")


@dataclass(slots=True)
class Places:
    """What lies where. problems: folders that could not be looked through, and why."""

    adapters: list[Path] = field(default_factory=list)
    bases: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    folders: int = 0


def find(roots: Sequence[Path], depth: int = DEPTH) -> Places:
    """Look through `roots`. Raises a usage error for one that is no folder."""
    places = Places()
    resolved = [_root(root) for root in roots]
    seen: set[tuple[int, int]] = set()
    for root in resolved:
        for folder, entries in _walk(root, depth, resolved, places, seen):
            places.folders += 1
            names = {entry.name for entry in entries}
            if names & {CONFIG, WEIGHTS, *PICKLES}:
                places.adapters.append(folder)
            elif "config.json" in names and any(map(_is_weights, names)):
                places.bases.append(folder)
    return places


def _root(root: Path) -> Path:
    path = root.expanduser()
    if not path.is_dir():
        word = "is not a folder" if path.exists() else "does not exist"
        raise usage_error(f"{root} {word}", "give folders to look through")
    return path.resolve()


def _walk(
    folder: Path,
    depth: int,
    roots: Sequence[Path],
    places: Places,
    seen: set[tuple[int, int]],
) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    try:
        facts = folder.stat()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        places.problems.append(f"{folder}: {error.strerror}")
        return
    # Roots may lie in each other, and a file system may be mounted twice.
    if (facts.st_dev, facts.st_ino) in seen or folder == adz_home().resolve():
        return
    seen.add((facts.st_dev, facts.st_ino))
    yield folder, entries
    is_hub_cache = any(entry.name == "snapshots" for entry in entries)
    for entry in entries:
        if entry.is_symlink():
            _note_link(entry, roots, places)
        elif entry.is_dir() and not (
            entry.name in _SKIPPED or (is_hub_cache and entry.name in ("blobs", "refs"))
        ):
            if depth == 0:
                places.problems.append(f"{entry.path}: too deep, name it to look through it")
            else:
                yield from _walk(Path(entry.path), depth - 1, roots, places, seen)


def _note_link(entry: os.DirEntry[str], roots: Sequence[Path], places: Places) -> None:
    """A link to a folder elsewhere may lead anywhere, and back: the user is told of it."""
    try:
        target = Path(entry.path).resolve(strict=True)
        elsewhere = target.is_dir() and not any(target.is_relative_to(root) for root in roots)
    # A link to itself, to nothing, or to where we may not look.
    except (OSError, RuntimeError):
        return
    if elsewhere:
        places.problems.append(f"{entry.path}: a link to {target}, name it to look through it")


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json")) and name.startswith(
        _BASE_WEIGHTS
    )
