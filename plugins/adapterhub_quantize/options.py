"""The options of each quantizer. Imports no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Nf4Options(_Options):
    """Options of `nf4`."""

    double_quant: bool = True
    """Quantises the scales too: 0.4 bit a weight less."""


class Int8Options(_Options):
    """Options of `int8`."""

    threshold: float = Field(default=6.0, ge=0)
    """Columns of activations above it are multiplied without quantisation."""
