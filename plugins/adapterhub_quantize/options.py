"""The options of each quantizer. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FourBitOptions(_Options):
    """Options of `nf4` and `fp4`."""

    double_quant: bool = True
    """Quantises the scales too: 0.4 bit a weight less."""


class Int8Options(_Options):
    """Options of `int8`."""

    threshold: float = Field(default=6.0, ge=0)
    """Columns of activations above it are multiplied without quantisation."""


class TorchAoOptions(_Options):
    """Options of `torchao`."""

    weights: Literal["int8", "int4"] = "int8"
    """How the weights are held; int4 needs a GPU."""
    group_size: int = Field(default=128, ge=32)
    """Weights that share a scale, with int4."""


class HqqOptions(_Options):
    """Options of `hqq`."""

    bits: Literal[1, 2, 3, 4, 8] = 4
    group_size: int = Field(default=64, ge=8)
    """Weights that share a scale."""


class StoredOptions(_Options):
    """Options of `gptq` and `awq`, for a base that is stored so."""

    bits: Literal[2, 3, 4, 8] = 4
    group_size: int = Field(default=128, ge=-1)
    """Weights that share a scale; -1: a whole row."""
