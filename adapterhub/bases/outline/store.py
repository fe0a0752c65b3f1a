"""Outlines on disk: one file for each base, of use only while all that it depends on is the same.

An outline holds facts that follow from the base, the libraries and this machine. It is made when
a base is added, or by a dry run that finds none, and may be deleted at any time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from adapterhub import __version__
from adapterhub.bases.outline.layout import BaseModule, Layout
from adapterhub.bases.outline.tokenizer import KeptTokenizer
from adapterhub.home import adz_home
from adapterhub.manifest import BaseRecord

_FORMAT = 1
_LIBRARIES = ("tokenizers", "torch", "transformers")
# What decides how many threads torch computes with, beside the cores that it may use.
_THREAD_VARIABLES = ("GOMP_", "KMP_", "MKL_", "OMP_")
# Set by torch itself, on import.
_NOT_OURS = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
_CORE_FACTS = ("cpu cores", "model name", "siblings")


@dataclass(frozen=True, slots=True)
class Outline:
    """threads: those that torch computes with on this machine's CPU. tokenizer: None where
    only transformers knows it."""

    layout: Layout
    threads: int
    tokenizer: KeptTokenizer | None


def read_outline(base: BaseRecord) -> Outline | None:
    """What is kept of the base; None where nothing is, or where something changed since."""
    try:
        values = json.loads(_path(base.name).read_text(encoding="utf-8"))
        if values["stamp"] != _stamp(base):
            return None
        kept = values["tokenizer"]
        return Outline(
            _layout(values["layout"]), values["threads"], KeptTokenizer(kept) if kept else None
        )
    # A broken file is none; `tokenizers` raises bare exceptions.
    except Exception:
        return None


def write_outline(
    base: BaseRecord, layout: Layout, threads: int, tokenizer: Mapping[str, Any] | None
) -> None:
    """Keep these facts of the base, the tokenizer as `keep_tokenizer` gives it. Where they cannot
    be written, the next dry run is as slow as without."""
    values = {
        "stamp": _stamp(base),
        "layout": asdict(layout),
        "threads": threads,
        "tokenizer": tokenizer,
    }
    path = _path(base.name)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.write_text(json.dumps(values), encoding="utf-8")
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)


def forget_outline(name: str) -> None:
    """Remove what is kept of a base."""
    _path(name).unlink(missing_ok=True)


def _layout(values: dict[str, Any]) -> Layout:
    modules = (
        BaseModule(
            module["name"],
            module["linear"],
            tuple(module["size"]) if module["size"] else None,
            tuple(module["matrices"]),
        )
        for module in values["modules"]
    )
    return Layout(tuple(modules), values["output"], values["stacked"])


def _stamp(base: BaseRecord) -> dict[str, Any]:
    """All that the facts depend on; PackageNotFoundError where a library is not installed."""
    return {
        "format": _FORMAT,
        "adapterhub": __version__,
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        "base": base.digests.model_dump(mode="json"),
        "machine": _machine(),
    }


def _machine() -> list[Any]:
    cores: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    usable = sorted(cores(0)) if cores else [os.cpu_count()]
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_THREAD_VARIABLES) and name not in _NOT_OURS
    }
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {line for line in lines if line.startswith(_CORE_FACTS)}
    return [usable, variables, sorted(facts)]


def _path(name: str) -> Path:
    # No name holds an @, so team/name cannot meet another name's file.
    return adz_home() / "bases" / "outlines" / f"{name.replace('/', '@')}.json"
