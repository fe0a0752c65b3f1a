"""What a merge was asked for. No torch here: the command line builds it for `--dry-run` too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from adapterhub.errors import usage_error
from adapterhub.expression import is_expression, parse_expression
from adapterhub.reference import is_directory_reference

_ENERGY = re.compile(r"energy=([0-9]+\.?[0-9]*|\.[0-9]+)")


class MergeRecipe(BaseModel):
    """The options of a merge, by the same names in YAML, as flags and in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapters: tuple[str, ...] = Field(
        (), description="References or directories to merge, or one expression."
    )
    rule: str | None = Field(
        None,
        description="How to combine them; by default regmean where every adapter has recorded its "
        "inputs, else linear.",
    )
    weights: tuple[float, ...] | None = Field(
        None, description="A number for each adapter; 1/n where not given. Never normalised."
    )
    scale: float = Field(
        1.0, allow_inf_nan=False, description="Multiplies the result, whatever the rule."
    )
    density: float | None = Field(None, gt=0, le=1, description="The share of elements kept.")
    rank: int | str | None = Field(
        None,
        description="The result's rank: max or sum of the adapters' ranks, a number, or "
        "energy=0.99 for the least that keeps this share of every module's squared norm.",
    )
    round_rank: bool = Field(False, description="Round the rank up to one that vLLM serves.")
    seed: int = Field(0, ge=0, description="Keys the random numbers of a rule.")
    space: str | None = Field(None, description="The coordinates in which the rule runs.")
    compat: str | None = Field(None, description="Compute as a peer does: peft, mergekit, paper.")
    base: str | None = Field(None, description="The base of adapters given as directories.")
    name: str | None = Field(None, description="The result's name in the registry.")
    out: Path | None = Field(None, description="Write a PEFT directory instead of a version.")
    workers: int | None = Field(None, ge=1, description="Threads; as many as CPUs by default.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="The options of the rule's own."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_expression(cls, values: Any) -> Any:
        """One adapter that is an expression stands for the options that it says."""
        given = values.get("adapters") or ()
        text = given[0] if len(given) == 1 and isinstance(given, list | tuple) else None
        if not isinstance(text, str) or is_directory_reference(text) or not is_expression(text):
            return values
        said = parse_expression(text).recipe()
        others = {key: value for key, value in values.items() if key != "adapters"}
        for key in said:
            if others.get(key):
                raise usage_error(f"{key} is given beside the expression {text}", "say it once")
        return {**others, **said}

    @field_validator("weights", mode="before")
    @classmethod
    def _split_weights(cls, value: Any) -> Any:
        if not isinstance(value, str | int | float):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            raise ValueError("weights are numbers with commas between, such as 0.7,0.3") from None

    @field_validator("weights")
    @classmethod
    def _finite_weights(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not all(abs(weight) < float("inf") for weight in value):
            raise ValueError("weights must be finite")
        return value

    @field_validator("rank", mode="before")
    @classmethod
    def _read_rank(cls, value: Any) -> Any:
        if value is None or value in ("sum", "max"):
            return value
        if isinstance(value, str) and _ENERGY.fullmatch(value):
            if not 0 < float(value.removeprefix("energy=")) <= 1:
                raise ValueError("the energy is a share of the squared norm, above 0 and at most 1")
            return value
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError("the rank is max, sum, energy=SHARE or a whole number above 0")
        return value

    @property
    def energy(self) -> float | None:
        """The share that the rank must keep, where that is what `rank` says."""
        if isinstance(self.rank, str) and self.rank.startswith("energy="):
            return float(self.rank.removeprefix("energy="))
        return None
