"""What a conversion was asked for. No torch here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_ENERGY = re.compile(r"energy=([0-9.eE+-]+)")


class ConvertRecipe(BaseModel):
    """The options of a conversion, by the same names as flags and in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: str = Field(description="A reference or a directory.")
    to: Literal["lora"] = Field("lora", description="The method of the result.")
    rank: int | str | None = Field(
        None,
        description="The result's rank: a number, or energy=0.99 for the least that keeps this "
        "share of every module's squared norm; exact where not given and possible.",
    )
    base: str | None = Field(None, description="The base of an adapter given as a directory.")
    initial: str | None = Field(
        None, description="The adapter before training, of one that began as part of the base."
    )
    data: Path | None = Field(None, description="Rows whose prompts the logits are measured on.")
    name: str | None = Field(None, description="The result's name in the registry.")
    out: Path | None = Field(None, description="Write a PEFT directory instead of a version.")
    workers: int | None = Field(None, ge=1, description="Threads; as many as CPUs by default.")

    @field_validator("rank", mode="before")
    @classmethod
    def _read_rank(cls, value: Any) -> Any:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value is None or (isinstance(value, int) and value is not True and value > 0):
            return value
        match = _ENERGY.fullmatch(value) if isinstance(value, str) else None
        try:
            share = float(match[1]) if match else 0.0
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise ValueError("the rank is a whole number above 0, or energy= a share up to 1")
        return value

    @property
    def energy(self) -> float | None:
        """The share of the squared norm to keep, where the rank is given so."""
        return float(self.rank.removeprefix("energy=")) if isinstance(self.rank, str) else None
