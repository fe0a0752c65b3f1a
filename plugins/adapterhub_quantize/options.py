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

    group_size: int = Field(default=0, ge=0)
    """Weights that share a scale; 0: a whole row."""


class HqqOptions(_Options):
    """Options of `hqq`."""

    bits: Literal[1, 2, 3, 4, 8] = 4
    group_size: int = Field(default=64, ge=8, multiple_of=8)
    """Weights that share a scale."""


class StoredOptions(_Options):
    """Options of `gptq` and `awq`: a base that is stored so has them in its own files."""
