"""Options. A module of its own, because it must not import torch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class BitfitOptions(BaseModel):
    """Options of `bitfit`: `-o method.targets=[q_proj,v_proj]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suggested_lr: ClassVar[float] = 1e-2
    """The learning rate where the recipe names none."""

    targets: list[str] | None = None
    """The last part of the names of the linear layers; all but the output layer if None."""
