"""The options of `full`. Imports no torch."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class FullOptions(BaseModel):
    """`full` has no options of its own.

    `suggested_lr` is the peak learning rate where the recipe names none: that of Tulu 2 (Ivison
    et al. 2023, appendix C) and of many others who fine-tuned instruction models.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suggested_lr: ClassVar[float] = 2e-5
