"""The options that peers' variants add, by the peers' own names where those are free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PeftSign(_Options):
    """Of PEFT's rules that elect a sign."""

    majority_sign_method: Literal["total", "frequency"] = Field(
        "total", description="Elect by the sum of the values, or by their number."
    )


class Mergekit(_Options):
    """Of mergekit's `task_arithmetic`."""

    normalize: bool = Field(False, description="Divide by the sum of the weights.")


class MergekitTies(Mergekit):
    """Of mergekit's `ties`."""

    normalize: bool = Field(True, description="Divide by the sum of the weights that agree.")


class MergekitDare(Mergekit):
    """Of mergekit's `dare_linear` and `dare_ties`."""

    rescale: bool = Field(True, description="Give what is kept the L1 norm of all.")


class MergekitBreadcrumbs(Mergekit):
    """Of mergekit's `breadcrumbs`, and of `breadcrumbs_ties` with a consensus."""

    consensus: bool = Field(False, description="Elect a sign.")
    gamma: float = Field(0.01, ge=0, lt=1, description="The share of outliers, the largest.")


class MergekitDella(MergekitDare):
    """Of mergekit's `della`, and of `della_linear` without a consensus."""

    consensus: bool = Field(True, description="Elect a sign.")
    normalize: bool = Field(True, description="Divide by the sum of the weights that agree.")
    epsilon: float = Field(
        0.15, gt=0, lt=0.5, description="How far a probability lies from the density at most."
    )
