"""One line of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and what was found. `absent` is something that one may well do
    without; `wrong` is what `advice` mends."""

    name: str
    status: Literal["ok", "absent", "wrong"]
    found: str
    advice: str = ""


def wrong(name: str, problem: str, advice: str) -> Check:
    """A line for something that must be mended."""
    return Check(name, "wrong", problem, advice)
