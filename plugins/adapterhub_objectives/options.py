"""The options of each objective. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DpoOptions(_Options):
    """Options of `dpo`."""

    beta: float = Field(default=0.1, gt=0)
    """How closely the model is held to what it was."""
    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """Of DPO, SLiC or IPO."""


class KtoOptions(_Options):
    """Options of `kto`."""

    beta: float = Field(default=0.1, gt=0)
    """How closely the model is held to what it was."""
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)


class OrpoOptions(_Options):
    """Options of `orpo`."""

    beta: float = Field(default=0.1, gt=0)
    """The weight of the odds ratio beside the likelihood; lambda in the paper."""


class RewardOptions(_Options):
    """Options of `reward`."""

    center: float = Field(default=0.0, ge=0)
    """The weight of a term that keeps the mean reward at 0."""


class RewardSource(_Options):
    """One reward: an adapter that `reward` trained, or a function by its entry point."""

    adapter: str | None = None
    """A reference, such as `good@2`."""
    function: str | None = None
    """A name in the entry-point group `adapterhub.rewards`."""
    weight: float = 1.0

    @model_validator(mode="after")
    def _is_one(self) -> RewardSource:
        if (self.adapter is None) == (self.function is None):
            raise ValueError("a reward is an adapter or a function")
        return self


class OnlineOptions(_Options):
    """What `grpo` and `rloo` have in common."""

    rewards: tuple[RewardSource, ...] = Field(min_length=1)
    generations: int = Field(default=4, ge=2)
    """Answers to each question; a batch is a multiple of it."""
    max_answer: int = Field(default=128, gt=0)
    """The most tokens of an answer."""
    temperature: float = Field(default=1.0, gt=0)


class GrpoOptions(OnlineOptions):
    """Options of `grpo`."""

    beta: float = Field(default=0.0, ge=0)
    """The weight of the divergence from the base; with 0 it is not computed."""


class RlooOptions(OnlineOptions):
    """Options of `rloo`."""

    beta: float = Field(default=0.05, ge=0)
    """The weight of the divergence from the base."""
