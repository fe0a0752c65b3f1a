"""What is known of a plugin: where it came from, what it brings, what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from adapterhub import specs

Status = Literal["loaded", "failed", "incompatible", "disabled"]


@dataclass(slots=True)
class PluginRecord:
    """One entry point: where it came from and what became of it.

    hooks: those that it implements. components: their names by kind. shared: names that another
    plugin has too, by kind. seconds: what its import and its hooks took; 0 where they are
    remembered from an earlier process.
    """

    name: str
    module: str
    distribution: str
    version: str
    status: Status = "loaded"
    problem: str = ""
    components: dict[str, list[str]] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)
    shared: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Provided:
    """A component and the plugin that provides it."""

    component: specs.Component
    plugin: PluginRecord
