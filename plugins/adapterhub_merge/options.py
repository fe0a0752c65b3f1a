"""The options of rules beyond those of `adz merge`: `-o options.NAME=VALUE`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Breadcrumbs(_Options):
    """Of `breadcrumbs`."""

    gamma: float = Field(0.01, ge=0, lt=1, description="The share of outliers, the largest.")


class Della(_Options):
    """Of `della`."""

    epsilon: float = Field(
        0.1, ge=0, le=0.5, description="How far a probability lies from the density at most."
    )


class IsoCts(_Options):
    """Of `iso-cts`."""

    common_space_fraction: float = Field(
        0.8, ge=0, le=1, description="The share of the sum's directions that stay."
    )


class Regmean(_Options):
    """Of `regmean`."""

    shrinkage: float = Field(
        1.0, ge=0, le=1, description="The share of the moments off the diagonal that is kept."
    )
    ridge: float = Field(1e-6, ge=0, description="Added to the diagonal, as a share of its mean.")
