"""Bases that are stored quantised: unpacking a weight, and packing it again to see what is lost.

bitsandbytes' two layouts, in which `save_pretrained` writes them. Others are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import torch

from adapterhub.bases.headers import TensorInfo
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseRecord
from adapterhub.plugins import is_installed

Read = Callable[[str], torch.Tensor]


class Packing(Protocol):
    """How a quantised weight is stored. Names are those of the file."""

    name: str

    def packs(self, name: str, stored: Collection[str]) -> bool:
        """Whether this tensor is a packed weight."""

    def is_part(self, name: str, stored: Collection[str]) -> bool:
        """Whether this tensor only says how to unpack another one."""

    def shape(self, name: str, info: TensorInfo, read: Read) -> tuple[int, ...]:
        """The unpacked weight's shape."""

    def unpack(self, name: str, read: Read) -> torch.Tensor:
        """The weight in float32."""

    def repack(self, weight: torch.Tensor) -> torch.Tensor:
        """What would be read of `weight` (float32) if it were stored in this way."""


def find_packing(record: BaseRecord, config: Mapping[str, Any]) -> Packing | None:
    """How the base is packed; None where it is not. AdzError for what cannot be unpacked."""
    settings = config.get("quantization_config")
    if not settings:
        return None
    method = settings.get("quant_method")
    if method != "bitsandbytes":
        raise AdzError(
            f"the base {record.name} is stored quantised by {method}, which is not unpacked here",
            "fold into the same model in plain floats, or in bitsandbytes",
        )
    if not is_installed("bitsandbytes"):
        raise AdzError(
            f"the base {record.name} is stored quantised by bitsandbytes",
            "pip install 'adapterhub[train]'",
        )
    return _Bits4(settings) if settings.get("load_in_4bit") else _Bits8()


class _Bits4:
    """nf4 and fp4: two weights a byte, a scale for each block, the scales quantised or not."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.name = str(settings.get("bnb_4bit_quant_type", "fp4"))
        self._nested = bool(settings.get("bnb_4bit_use_double_quant"))
        self._state = f".quant_state.bitsandbytes__{self.name}"

    def packs(self, name: str, stored: Collection[str]) -> bool:
        return name + self._state in stored

    def is_part(self, name: str, stored: Collection[str]) -> bool:
        weight, found, _ = name.partition(".weight.")
        return bool(found) and self.packs(f"{weight}.weight", stored)

    def shape(self, name: str, info: TensorInfo, read: Read) -> tuple[int, ...]:
        state = json.loads(read(name + self._state).numpy().tobytes())
        return tuple(state["shape"])

    def unpack(self, name: str, read: Read) -> torch.Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        parts = ["absmax", "quant_map"]
        if self._nested:
            parts += ["nested_absmax", "nested_quant_map"]
        tensors = {f"{name}.{part}": read(f"{name}.{part}") for part in parts}
        tensors[name + self._state] = read(name + self._state)
        state = QuantState.from_dict(tensors, device=torch.device("cpu"))
        weight: torch.Tensor = dequantize_4bit(read(name), state)
        return weight.float()

    def repack(self, weight: torch.Tensor) -> torch.Tensor:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(
            weight, quant_type=self.name, compress_statistics=self._nested
        )
        result: torch.Tensor = dequantize_4bit(packed, state)
        return result.float()


class _Bits8:
    """int8: a scale for each row, so that its largest weight is 127."""

    name = "int8"

    def packs(self, name: str, stored: Collection[str]) -> bool:
        return name.endswith(".weight") and self._scale(name) in stored

    def is_part(self, name: str, stored: Collection[str]) -> bool:
        module, _, parameter = name.rpartition(".")
        return parameter in ("SCB", "weight_format") and f"{module}.SCB" in stored

    def shape(self, name: str, info: TensorInfo, read: Read) -> tuple[int, ...]:
        return info.shape

    def unpack(self, name: str, read: Read) -> torch.Tensor:
        return read(name).float() * (read(self._scale(name)).float()[:, None] / 127)

    def repack(self, weight: torch.Tensor) -> torch.Tensor:
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        return torch.where(scale > 0, (weight / scale).round() * scale, 0.0)

    def _scale(self, name: str) -> str:
        return name.removesuffix(".weight") + ".SCB"
