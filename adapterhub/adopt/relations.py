"""What an adapter is beside the others: a checkpoint of one, the same as another, or one that the
registry has already."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterhub.adopt.found import Found
from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.manifest import Version

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"
_MAX_STATE = 2**26
_SNAPSHOTS = "snapshots"


def note_checkpoints(found: Sequence[Found]) -> None:
    """Hold the checkpoints of a training whose result is here: the adapter beside them, else
    the best one, else the last."""
    by_parent: dict[Path, list[Found]] = {}
    good = {one.directory: one for one in found if one.level != "error"}
    for one in found:
        match = _CHECKPOINT.fullmatch(one.directory.name)
        if match:
            one.step = int(match[1])
            if one.level != "error":
                by_parent.setdefault(one.directory.parent, []).append(one)
    for parent, steps in by_parent.items():
        steps.sort(key=lambda one: one.step or 0)
        final = good.get(parent)
        best = _best(steps)
        kept = final or best or steps[-1]
        for one in steps:
            if one is not kept:
                one.add("checkpoint", "held", _of_final(one, final, best))
        if final is None and len(steps) > 1:
            word = "best" if best else "last"
            kept.add("checkpoint", "note", f"the {word} of {len(steps)} checkpoints")


def _of_final(one: Found, final: Found | None, best: Found | None) -> str:
    if final is not None:
        same = ", the same tensors" if one.tensors == final.tensors else ""
        return f"step {one.step} of the adapter in the folder above{same}"
    return f"step {one.step}; the {'best' if best else 'last'} checkpoint is beside it"


def _best(steps: Sequence[Found]) -> Found | None:
    """The checkpoint that the last one's trainer_state.json calls the best."""
    path = steps[-1].directory / _STATE
    try:
        if path.stat().st_size > _MAX_STATE:
            return None
        state = json.loads(path.read_bytes())
        name = Path(state["best_model_checkpoint"]).name
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return next((one for one in steps if one.directory.name == name), None)


def note_duplicates(found: Iterable[Found]) -> None:
    """Hold what holds the same tensors as another one that was found."""
    firsts: dict[str, Found] = {}
    for one in sorted(found, key=_preference):
        if one.tensors is None or one.level == "error" or is_held_checkpoint(one):
            continue
        first = firsts.setdefault(one.tensors, one)
        if first is one:
            continue
        differing = _differing(first.config, one.config)
        if differing:
            which = f"the same tensors under another configuration ({', '.join(differing[:4])})"
            one.add("duplicate", "held", f"{which} than {first.directory}")
        else:
            one.add("duplicate", "held", f"the same adapter as {first.directory}")


def note_known(found: Iterable[Found], versions: Iterable[Version]) -> None:
    """Hold what the registry has already."""
    stored: dict[str, list[Version]] = {}
    for version in versions:
        record = version.manifest.files.get(WEIGHTS)
        if record:
            stored.setdefault(record.sha256, []).append(version)
    for one in found:
        same = stored.get(one.digests.get(WEIGHTS, ""), [])
        if not same:
            continue
        config = one.digests.get(CONFIG)
        exact = [v for v in same if v.manifest.files[CONFIG].sha256 == config]
        if exact:
            one.add("known", "held", f"the registry has it: {exact[0].reference}")
        else:
            text = f"the registry has its weights under another configuration: {same[0].reference}"
            one.add("known", "held", text)


def hub_repository(directory: Path) -> tuple[str, str] | None:
    """The name and revision of a folder in the hub's cache; None elsewhere."""
    parts = directory.parts
    for position in range(len(parts) - 1, 1, -1):
        if parts[position - 1] == _SNAPSHOTS and parts[position - 2].startswith("models--"):
            name = parts[position - 2].removeprefix("models--").replace("--", "/")
            return name, parts[position]
    return None


def is_main_revision(directory: Path) -> bool:
    """Whether a folder in the hub's cache is what `main` means there; True elsewhere."""
    repository = hub_repository(directory)
    if repository is None:
        return True
    folder = next(p for p in directory.parents if p.name == _SNAPSHOTS).parent
    try:
        return (folder / "refs" / "main").read_text("utf-8").strip() == repository[1]
    except (OSError, UnicodeDecodeError):
        return False


def _preference(one: Found) -> tuple[bool, int, str]:
    directory = one.directory
    return not is_main_revision(directory), len(directory.parts), str(directory)


def is_held_checkpoint(one: Found) -> bool:
    """Whether a better checkpoint of the same training, or its result, is there."""
    return any(fault.kind == "checkpoint" and fault.level == "held" for fault in one.faults)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The options that differ, apart from who wrote the file and whether an option is there."""
    ignored = {"peft_version", "revision", "inference_mode"}
    keys = sorted((one.keys() | other.keys()) - ignored)
    return [key for key in keys if _sorted(one.get(key)) != _sorted(other.get(key))]


def _sorted(value: Any) -> Any:
    # PEFT writes a set of names in any order, and newer versions write options that are off.
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value) or None
    return value or None
