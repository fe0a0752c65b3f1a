"""The options of each method. Imports no torch.

`suggested_lr` is the peak learning rate where the recipe names none: high for the methods that
train few parameters.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

Targets = str | list[str]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraOptions(_Options):
    """Options of `lora`."""

    suggested_lr: ClassVar[float] = 5e-4
    rslora: ClassVar[bool] = False
    dora: ClassVar[bool] = False

    r: int = Field(default=16, ge=1)
    """The rank."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Targets = "all-linear"
    """`all-linear` (all but the output layer), a regular expression, or a list of names."""


class RsLoraOptions(LoraOptions):
    """Options of `rslora`; the update is scaled by alpha / sqrt(r)."""

    suggested_lr: ClassVar[float] = 2e-4
    rslora: ClassVar[bool] = True

    alpha: float = Field(default=16, gt=0)


class DoraOptions(LoraOptions):
    """Options of `dora`."""

    dora: ClassVar[bool] = True


class Ia3Options(_Options):
    """Options of `ia3`."""

    suggested_lr: ClassVar[float] = 1e-2

    targets: Targets = "auto"
    """`auto`: what the paper scales (keys, values, the feed-forward layer) where PEFT knows the
    architecture; a regular expression, or a list of names."""
    feedforward: Targets = "auto"
    """Which of them are scaled at their input: the second layer of the feed-forward block."""


class PrefixOptions(_Options):
    """Options of `prefix`."""

    suggested_lr: ClassVar[float] = 1e-2

    tokens: int = Field(default=16, ge=1)
    """Virtual tokens before the prompt."""


class PromptOptions(_Options):
    """Options of `prompt`."""

    suggested_lr: ClassVar[float] = 3e-2

    tokens: int = Field(default=16, ge=1)
    """Virtual tokens before the prompt."""
