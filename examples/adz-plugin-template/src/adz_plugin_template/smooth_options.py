"""Options. A module of its own, because it must not import torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SmoothOptions(BaseModel):
    """Options of `smooth`: `-o objective.smoothing=0.2`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    smoothing: float = Field(0.1, ge=0, lt=1)
    """The share of the likelihood that is spread over the whole vocabulary."""
