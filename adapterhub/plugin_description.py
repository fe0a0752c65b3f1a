"""What a component is and which options it takes, for people and for `--json`."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from adapterhub import specs
from adapterhub.errors import unknown_name
from adapterhub.plugin_hooks import KINDS
from adapterhub.plugin_records import Provided
from adapterhub.plugins import load_plugins

SECTIONS: dict[type[specs.Component], str] = {
    specs.Method: "method",
    specs.Quantizer: "quantizer",
    specs.Objective: "objective",
    specs.MergeRule: "options",
}
"""Where the options of a kind stand in a recipe: `-o method.r=32`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option. name: as `-o` takes it. values: what it may be, in words of Python."""

    name: str
    default: Any
    values: str
    description: str


@dataclass(frozen=True, slots=True)
class Description:
    """One component, of which plugin, and its options. facts: what its descriptor says besides;
    docs/authors has a page for each kind."""

    kind: str
    name: str
    summary: str
    status: str
    distribution: str
    version: str
    requires: tuple[str, ...]
    facts: dict[str, Any]
    options: tuple[Option, ...]


def describe(name: str) -> list[Description]:
    """Every component called `name`, or `distribution:name`. Raises AdzError where none is."""
    distribution, _, short = name.rpartition(":")
    provided = [(kind, one) for kind in KINDS for one in load_plugins().provided(kind)]
    found = [
        _describe(kind, one)
        for kind, one in provided
        if one.component.name == short and distribution in ("", one.plugin.distribution)
    ]
    if not found:
        raise unknown_name("component", name, {one.component.name for _, one in provided})
    return found


def _describe(kind: type[specs.Component], provided: Provided) -> Description:
    component, plugin = provided.component, provided.plugin
    model = load_plugins().load_options(component)
    options = _options(model, SECTIONS[kind]) if model and kind in SECTIONS else ()
    general = {field.name for field in fields(specs.Component)}
    facts = {f.name: getattr(component, f.name) for f in fields(component) if f.name not in general}
    return Description(
        KINDS[kind][1], component.name, component.summary, component.status, plugin.distribution,
        plugin.version, component.requires, facts, tuple(options),
    )  # fmt: skip


def _options(model: type[BaseModel], section: str) -> Iterator[Option]:
    for name, field in model.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        words = field.description or ""
        shown = to_jsonable_python(default)
        yield Option(f"{section}.{name}", shown, _values(field.annotation), words)


def _values(annotation: Any) -> str:
    """`int`, `sigmoid | hinge`, `list[str] | None`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _values(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(map(_values, arguments)))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if annotation is NoneType:
        return "none"
    if origin is not None and arguments:
        return f"{_values(origin)}[{', '.join(map(_values, arguments))}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping"
    return "any" if annotation in (Any, ...) else str(getattr(annotation, "__name__", annotation))
