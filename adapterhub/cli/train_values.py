"""What the recipe file, `-o` and the flags of `adz train` say together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from adapterhub.cli.output import TerminalProgress


def merged_values(
    config: Path | None,
    overrides: tuple[str, ...],
    flags: dict[str, Any],
    *,
    ignore_unknown: bool,
) -> dict[str, Any]:
    from adapterhub.config import merge_into, parse_overrides
    from adapterhub.errors import usage_error

    values: dict[str, Any] = {}
    if config is not None:
        merge_into(values, _read_config(config, ignore_unknown=ignore_unknown))
    for source in (parse_overrides(overrides), _nested(flags)):
        for part in (values, source):
            _expand_names(part)
        merge_into(values, source)
    data = values.get("data")
    if not isinstance(data, dict) or "train" not in data:
        raise usage_error("no data is given", "use --data FILE, or data.train in the recipe")
    return values


def _read_config(path: Path, *, ignore_unknown: bool) -> dict[str, Any]:
    """A recipe of ours, or of another trainer with what is to be said of it on stderr."""
    from adapterhub.config import read_recipe
    from adapterhub.errors import usage_error
    from adapterhub.train.foreign import recognise, translate

    values = read_recipe(path)
    project = recognise(values)
    if project is None:
        return _from_folder(values, path.parent)
    from adapterhub.plugins import open_registry

    bases = {base.name: base.source for base in open_registry().bases()}
    read = translate(project, values, path.parent, bases)
    unknown = ", ".join(read.unknown)
    if unknown and not ignore_unknown:
        raise usage_error(
            f"unknown keys in this {read.project} recipe: {unknown}",
            "take them out, or use --ignore-unknown",
        )
    progress = TerminalProgress()
    progress.note(f"read as a recipe of {read.project}")
    for note in read.notes:
        progress.note(note)
    if unknown:
        progress.warn(f"ignored: {unknown}")
    return read.values


def _nested(flags: dict[str, Any]) -> dict[str, Any]:
    from adapterhub.config import merge_into

    result: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            part, _, option = key.partition(".")
            merge_into(result, {part: {option: value}} if option else {part: value})
    return result


def _expand_names(values: dict[str, Any]) -> None:
    """`method: lora` is short for `method: {name: lora}`."""
    for key in ("method", "quantizer", "objective"):
        if isinstance(values.get(key), str):
            values[key] = {"name": values[key]}


def _from_folder(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe's relative paths count from its folder, and from here where nothing is there: a
    recipe that `adz export --with-artifacts` wrote counts from where `adz train` was called."""
    if isinstance(values.get("data"), list):
        values["data"] = {"train": values["data"]}
    data = values.get("data")
    if not isinstance(data, dict):
        return values
    for key in ("train", "holdout"):
        if isinstance(data.get(key), str):
            data[key] = _located(folder, data[key])
    if isinstance(data.get("train"), list):
        data["train"] = [
            {**part, "path": _located(folder, part["path"])}
            if isinstance(part, dict) and isinstance(part.get("path"), str)
            else (_located(folder, part) if isinstance(part, str) else part)
            for part in data["train"]
        ]
    return values


def _located(folder: Path, source: str) -> str:
    if source.startswith("hub:"):
        return source
    beside = os.path.normpath(folder / source)
    return source if Path(source).exists() and not Path(beside).exists() else beside
