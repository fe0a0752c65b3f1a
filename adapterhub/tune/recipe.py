"""What a search was asked for. No torch here."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_TRIALS = 30


class TuneRecipe(BaseModel):
    """The options of a search: flags of `adz merge`, and `tune:` in its recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: tuple[Path, ...] = Field((), description="Rows to choose on, a file for each task.")
    test: tuple[Path, ...] = Field(
        (), description="Rows to report on, a file for each of data; else half of data."
    )
    metric: str = Field("exact_match", description="How answers are scored.")
    trials: int | None = Field(None, ge=1, description="Merges to try at most.")
    minutes: float | None = Field(None, gt=0, description="Begin no further merge after these.")
    limit: int | None = Field(None, ge=1, description="Rows of each part of each file.")
    max_tokens: int | None = Field(
        None, ge=1, description="Longest answer; else 8 more than the longest reference."
    )
    batch_size: int = Field(16, ge=1, description="Prompts that are answered together.")

    @model_validator(mode="after")
    def _check_files(self) -> TuneRecipe:
        if not self.data:
            raise ValueError("name a file of rows to choose on, with --tune")
        if self.test and len(self.test) != len(self.data):
            raise ValueError("give one --test for each --tune, in the same order")
        return self

    @property
    def budget(self) -> int | None:
        """How many merges are tried; None where only the time is limited."""
        if self.trials is None and self.minutes is None:
            return DEFAULT_TRIALS
        return self.trials
