"""How two payloads differ: which files, which tensors, and by how much."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from adapterhub.bases.digests import hash_file

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """largest: of the absolute differences. relative: Frobenius, against the recorded tensor."""

    tensor: str
    largest: float
    relative: float


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file whose bytes differ, what about it differs, and the tensors that differ most."""

    file: str
    what: str
    tensors: tuple[TensorDifference, ...] = ()


def compare_payloads(recorded: Path, rebuilt: Path) -> tuple[FileDifference, ...]:
    """Every file that is not the same in both directories, by name."""
    ours, theirs = ({path.name for path in d.iterdir()} for d in (recorded, rebuilt))
    found = []
    for name in sorted(ours | theirs):
        if name not in theirs:
            found.append(FileDifference(name, "was not made again"))
        elif name not in ours:
            found.append(FileDifference(name, "was not there"))
        elif hash_file(recorded / name) != hash_file(rebuilt / name):
            found.append(_compare_file(recorded / name, rebuilt / name))
    return tuple(found)


def _compare_file(recorded: Path, rebuilt: Path) -> FileDifference:
    if recorded.suffix == ".safetensors":
        return _compare_tensors(recorded, rebuilt)
    if recorded.suffix == ".json":
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (recorded, rebuilt))
        keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        return FileDifference(recorded.name, ", ".join(keys) or "only its layout differs")
    return FileDifference(recorded.name, "its text differs")


def _compare_tensors(recorded: Path, rebuilt: Path) -> FileDifference:
    with safe_open(recorded, framework="pt") as old, safe_open(rebuilt, framework="pt") as new:
        names, others = set(old.keys()), set(new.keys())
        if names != others:
            name = min(names ^ others)
            where = "missing" if name in names else "new"
            return FileDifference(recorded.name, f"{len(names ^ others)} names, {name} is {where}")
        found = list(_tensor_differences(old, new, sorted(names)))
    found.sort(key=lambda difference: (-difference.relative, difference.tensor))
    what = f"{len(found)} of {len(names)} tensors" if found else "only its layout differs"
    return FileDifference(recorded.name, what, tuple(found[:_SHOWN]))


def _tensor_differences(old: Any, new: Any, names: list[str]) -> Iterator[TensorDifference]:
    infinite = float("inf")
    for name in names:
        left, right = old.get_tensor(name), new.get_tensor(name)
        if left.shape != right.shape:
            yield TensorDifference(name, infinite, infinite)
        elif left.dtype != right.dtype or not torch.equal(left, right):
            lost = left.double() - right.double()
            norm = float(left.double().norm())
            relative = float(lost.norm()) / norm if norm else infinite
            yield TensorDifference(name, float(lost.abs().max()), relative)
