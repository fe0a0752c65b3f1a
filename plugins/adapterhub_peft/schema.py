"""PEFT's types and their options as scripts/build_methods.py found them. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a type. field: PEFT's name of it. kind: what it takes, as the file says."""

    field: str
    kind: Any
    default: Any
    help: str

    @property
    def nested(self) -> Mapping[str, Any] | None:
        """The configuration that it holds, where it holds one."""
        members = self.kind if isinstance(self.kind, list) else [self.kind]
        return next((m for m in members if isinstance(m, dict) and "class" in m), None)


@dataclass(frozen=True, slots=True)
class PeftType:
    """A type of PEFT: the class of its configuration, and its options by our names."""

    config: str
    options: Mapping[str, Option]


@cache
def peft_types() -> Mapping[str, PeftType]:
    """Every type by PEFT's name for it, such as `ADAPTION_PROMPT`."""
    text = Path(__file__).with_name("schema.json").read_text(encoding="utf-8")
    return {name: read_type(value) for name, value in json.loads(text)["types"].items()}


def read_type(value: Mapping[str, Any]) -> PeftType:
    """One entry of the file, or a configuration nested in one."""
    options = {
        name: Option(option["field"], option["type"], option["default"], option.get("help", ""))
        for name, option in value["options"].items()
    }
    return PeftType(value["class"], options)
