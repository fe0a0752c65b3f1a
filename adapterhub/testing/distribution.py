"""A plugin that can be loaded without being installed: what pip would write, by hand."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterhub.entry_points import GROUP

_MODULE = "one_module_plugin"


@dataclass(frozen=True, slots=True)
class Placed:
    """A distribution by name, and the folders that belong on `sys.path` for it."""

    distribution: str
    folders: tuple[Path, ...]


def place(source: str | Path, target: Path) -> Placed:
    """Write the metadata of a project (its folder), or of a plugin of one module (its text),
    below `target`. Raises ValueError for a project without an entry point of ours."""
    target.mkdir(parents=True)
    if isinstance(source, str):
        name = f"{_MODULE}_{target.name.replace('-', '_')}"
        (target / f"{name}.py").write_text(source, encoding="utf-8")
        distribution = name.replace("_", "-")
        _write_metadata(target, distribution, "1.0", (), {name: name})
        return Placed(distribution, (target,))
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = project.get("entry-points", {}).get(GROUP)
    if not entries:
        raise ValueError(f"{source}/pyproject.toml has no entry point in the group {GROUP}")
    name, version = project["name"], project.get("version", "0")
    _write_metadata(target, name, version, project.get("dependencies", ()), entries)
    code = source / "src"
    return Placed(name, (target, code if code.is_dir() else source))


def _write_metadata(
    target: Path, name: str, version: str, requires: Sequence[str], entries: Mapping[str, str]
) -> None:
    info = target / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]) + "\n")
    points = [f"{key} = {value}" for key, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *points]) + "\n")
