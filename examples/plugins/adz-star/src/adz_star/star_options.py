"""Options. A module of its own, because it must not import torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StarOptions(BaseModel):
    """Options of `star`: `-o options.eta=0.3`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    eta: float = Field(0.4, gt=0, le=1, description="The share of the nuclear norm that is kept.")
