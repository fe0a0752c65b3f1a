"""The options of `bottleneck`. Imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

_SCALES = {"houlsby": 1.0, "pfeiffer": 1.0, "parallel": 4.0}


class BottleneckOptions(BaseModel):
    """Options of `bottleneck`.

    `suggested_lr` is the peak learning rate where the recipe names none: that of Pfeiffer et al.
    2020.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suggested_lr: ClassVar[float] = 1e-4

    style: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    """Where they stand: behind attention and behind the feed-forward part, before each is added
    (Houlsby et al. 2019); behind the whole block (Pfeiffer et al. 2020); beside the feed-forward
    part, from the same input (He et al. 2022)."""
    size: int = Field(default=64, ge=1, le=65536)
    """The width of the bottleneck."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    scale: float | None = Field(default=None, gt=0)
    """What is added is multiplied by it; None: 4 for parallel, as its paper has it, else 1."""

    @property
    def factor(self) -> float:
        """The scale, with its default filled in."""
        return _SCALES[self.style] if self.scale is None else self.scale
