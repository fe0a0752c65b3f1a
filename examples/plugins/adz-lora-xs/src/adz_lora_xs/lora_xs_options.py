"""Options. A module of its own, because it must not import torch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class LoraXsOptions(BaseModel):
    """Options of `lora-xs`: `-o method.r=16`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suggested_lr: ClassVar[float] = 4e-3
    """The learning rate where the recipe names none."""

    r: int = Field(8, gt=0)
    """The side of the matrix that is trained: r * r numbers a layer."""
    targets: list[str] | None = None
    """The last part of the names of the linear layers; all but the output layer if None."""
