"""What a foreign recipe's tables have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from adapterhub.errors import usage_error

HARDWARE = "chosen from the hardware"
REGISTRY = "the registry keeps the result"
TRACKING = "metrics are kept with the version"
LOADING = "data is read anew each time"
STARTING = "how processes are started is no part of a recipe"


@dataclass(frozen=True, slots=True)
class Context:
    """What reading a value may need, and where notes go."""

    project: str
    folder: Path
    bases: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

    def refuse(self, what: str, hint: str = "") -> NoReturn:
        """A usage error for a value without a counterpart."""
        raise usage_error(f"this of the {self.project} recipe is not possible here: {what}", hint)


Read = Callable[[Any, Mapping[str, Any], Context], dict[str, Any]]
"""A value, all values and the context -> options of our recipe."""


@dataclass(frozen=True, slots=True)
class Project:
    """One trainer's recipes.

    marks: sets of keys; a recipe with all of one set is its. moved: keys that mean what one of
    ours does. read: keys whose value is read. unused: keys, or beginnings that end with `*`,
    and why they have no effect here. deep: keys of nested mappings are joined by dots.
    """

    name: str
    marks: tuple[frozenset[str], ...]
    moved: Mapping[str, str]
    read: Mapping[str, Read]
    unused: Mapping[str, str]
    deep: bool = False

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Whether a recipe is one of this project's."""
        return any(mark <= set(values) for mark in self.marks)

    def flatten(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values by key."""
        return dict(_joined(values, "")) if self.deep else dict(values)

    def unused_reason(self, key: str) -> str | None:
        """Why a key has no effect here; None where it is not known."""
        for known, reason in self.unused.items():
            if key == known or (known.endswith("*") and key.startswith(known[:-1])):
                return reason
        return None


def nested(path: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value as `{"a": {"b": value}}`."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return dict(value)


def read_base(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """The known base that came from this model; a note where there is none."""
    for name, source in context.bases.items():
        if value in (name, source):
            return {"base": name}
    context.notes.append(f"{value} is no known base: adz base add NAME {value}, or say --base NAME")
    return {}


def read_four_bit(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """QLoRA."""
    return {"quantizer": {"name": "nf4"}} if value else {}


def read_eight_bit(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """A base in int8."""
    return {"quantizer": {"name": "int8"}} if value else {}


def read_dora(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """DoRA."""
    return {"method": {"name": "dora"}} if value else {}


def read_rslora(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """rsLoRA."""
    return {"method": {"name": "rslora"}} if value else {}


def read_targets(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """A list, its text with commas, or all linear layers."""
    if isinstance(value, str) and value not in ("all", "all-linear"):
        value = [part.strip() for part in value.split(",")]
    return {"method": {"targets": value if isinstance(value, list) else "all-linear"}}


def locate_data(value: str, context: Context) -> str:
    """A file or folder beside the recipe or here, else a data set of the Hub."""
    for found in (context.folder / value, Path(value)):
        if found.exists():
            return str(found)
    if Path(value).is_absolute() or value.count("/") != 1:
        context.refuse(f"the data {value}, which is not here", "give another with --data")
    return f"hub:{value}"


def checkpointing(value: Any, _: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """True, or the name of a way of doing it."""
    return {"training": {"gradient_checkpointing": bool(value)}}


def _joined(values: Mapping[str, Any], before: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        found += _joined(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return found
