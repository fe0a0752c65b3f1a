"""Finding entry points quickly: by reading metadata folders, not through importlib.metadata.

`importlib.metadata` costs 30 ms to import and as much again to parse 200 distributions, at
every call of `adz`; pathlib would add 10. This reads only the files that may name our group.
Distributions inside zip files are not seen.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any, NamedTuple

GROUP = "adapterhub.plugins"
OWN_DISTRIBUTION = "adapterhub"


class EntryPoint(NamedTuple):
    """One line of a group: `name = value`, and the distribution that it belongs to.

    value: `package.module` or `package.module:attribute`. requires: the distribution's
    `Requires-Dist` lines as they stand in its metadata.
    """

    name: str
    value: str
    distribution: str
    version: str
    requires: tuple[str, ...]

    def load(self) -> Any:
        """Import the module and return it, or the attribute that `value` names in it."""
        module, _, attribute = self.value.partition(":")
        loaded = importlib.import_module(module)
        return reduce(getattr, attribute.split("."), loaded) if attribute else loaded


def find_entry_points(group: str, path: Iterable[str] | None = None) -> list[EntryPoint]:
    """All entry points of `group` on `path` (`sys.path`); of a distribution that is there
    twice the first counts, as for Python's own imports."""
    seen: set[str] = set()
    found: list[EntryPoint] = []
    for folder in sys.path if path is None else path:
        for project, metadata in _metadata_folders(folder or os.curdir):
            if project not in seen:
                seen.add(project)
                found += _entry_points(metadata, group)
    return found


def _metadata_folders(folder: str) -> list[tuple[str, str]]:
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
    return [
        (_project(name), f"{folder}/{name}")
        for name in sorted(names)
        if name.endswith((".dist-info", ".egg-info"))
    ]


def _project(folder_name: str) -> str:
    # `name-1.0.dist-info`; `a-b`, `a.b` and `A_B` are one project.
    stem = folder_name.rpartition(".")[0].partition("-")[0]
    return stem.lower().replace(".", "_")


def _entry_points(metadata: str, group: str) -> Iterator[EntryPoint]:
    text = _read(f"{metadata}/entry_points.txt")
    if f"[{group}]" not in text:
        return
    headers = _headers(metadata)
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == group and line and line[0] not in "#;":
            name, _, value = line.partition("=")
            yield EntryPoint(
                name.strip(),
                value.partition("[")[0].strip(),
                headers.get("name", ["?"])[0],
                headers.get("version", ["?"])[0],
                tuple(headers.get("requires-dist", ())),
            )


def _headers(metadata: str) -> dict[str, list[str]]:
    text = _read(f"{metadata}/METADATA") or _read(f"{metadata}/PKG-INFO")
    headers: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line:
            break
        key, separator, value = line.partition(":")
        if separator and not line[0].isspace():
            headers.setdefault(key.lower(), []).append(value.strip())
    return headers


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:  # noqa: PTH123
            return stream.read()
    except OSError:
        return ""
