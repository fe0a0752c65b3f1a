"""Reading PEFT LoRA directories: what they adapt, and one module's factors at a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.bases.headers import read_header
from adapterhub.bases.modules import PREFIX
from adapterhub.bases.tensors import read_tensor
from adapterhub.errors import AdzError
from adapterhub.merge.refusals import check_base_unchanged, check_plain
from adapterhub.moments import MomentsFile
from adapterhub.protocols import Factors

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?:(?P<factor>[AB])\.weight|embedding_(?P<embedding>[AB]))"
)
# A base's own weight, which PEFT stores beside the factors of an embedding or a head.
_COPY = re.compile(r"(?P<module>.+?)(?P<wrapped>\.base_layer)?\.weight")
# What training kept of its state, and no forward pass reads.
_STATE = re.compile(r".+\.lora_(?:velora_embed|monteclora_sampler\..+)")


@dataclass(frozen=True, slots=True)
class Copy:
    """A base's weight in an adapter's file. frozen: PEFT trained factors beside it, not it."""

    key: str
    shape: tuple[int, ...]
    frozen: bool


class LoraAdapter:
    """An open LoRA directory. `label` is what the user called it, and stands in every error.

    modules: module name, without PEFT's prefix, to its rank and shape (r, m, n). embeddings: those
    of them whose update PEFT adds transposed: n is the vocabulary. copies: the weights of the
    base that the file holds, by module; what they are is not known without the base.
    moments: the file of its input moments, where a merge needs them.
    base_changing: read the factors also of one that began as a part of the base's weights (PiSSA
    and the like), where they are not the update. Safe to read from several threads.
    """

    def __init__(self, label: str, directory: Path, *, base_changing: bool = False) -> None:
        self.label = label
        self.moments: MomentsFile | None = None
        self.config = _read_config(label, directory)
        check_plain(label, self.config)
        if not base_changing:
            check_base_unchanged(label, self.config)
        self._file = _open_weights(label, directory)
        self._path = directory / WEIGHTS
        self._stored = read_header(self._path)
        self._keys: dict[tuple[str, str], str] = {}
        self.embeddings: set[str] = set()
        self.copies: dict[str, Copy] = {}
        for name in self._file.keys():  # noqa: SIM118, it is no mapping
            self._sort(name)
        self.modules = {
            module: self._shape(module) for module in sorted({m for m, _ in self._keys})
        }
        if not self.modules:
            raise AdzError(f"{label} has no LoRA factors in {WEIGHTS}")

    @property
    def parameters(self) -> int:
        """The number of stored elements."""
        return sum(r * (m + n) for r, m, n in self.modules.values())

    def factors(self, module: str, shape: tuple[int, int]) -> Factors:
        """The module's factors in float32; rank 0 of `shape` (m, n) where it has none."""
        if module not in self.modules:
            return Factors(a=torch.zeros(0, shape[1]), b=torch.zeros(shape[0], 0), scale=1.0)
        a, b = (self._read(self._keys[module, f]).float() for f in "AB")
        if not (is_finite(a) and is_finite(b)):
            raise AdzError(f"{self.label}: {module} holds NaN or infinity", "train it again")
        moments = self.moments.of(module, a.shape[1]) if self.moments else None
        return Factors(a=a, b=b, scale=self._scale(module), moments=moments)

    def _read(self, name: str) -> torch.Tensor:
        # By a plain read: the pages of a mapped file would stay in memory, for all modules.
        try:
            return read_tensor(self._path, self._stored[name])
        except OSError as error:
            raise AdzError(f"{self.label}: {name} cannot be read: {error}") from error

    def copy_rows(self, module: str, rows: slice) -> torch.Tensor:
        """Rows of a base's weight in `copies`, as they are stored."""
        stored: torch.Tensor = self._file.get_slice(self.copies[module].key)[rows]
        return stored

    def _sort(self, name: str) -> None:
        factor = _FACTOR.fullmatch(name)
        if factor:
            module = factor["module"].removeprefix(PREFIX)
            self._keys[module, factor["factor"] or factor["embedding"]] = name
            if factor["embedding"]:
                self.embeddings.add(module)
            return
        copy = _COPY.fullmatch(name)
        if copy and ".lora_" not in name:
            module = copy["module"].removeprefix(PREFIX)
            shape = tuple(self._file.get_slice(name).get_shape())
            self.copies[module] = Copy(name, shape, frozen=copy["wrapped"] is not None)
        elif not _STATE.fullmatch(name):
            raise AdzError(
                f"{self.label}: {name} is no factor of a linear layer or an embedding",
                "only those can be merged",
            )

    def _shape(self, module: str) -> tuple[int, int, int]:
        missing = [f for f in "AB" if (module, f) not in self._keys]
        if missing:
            raise AdzError(f"{self.label}: {module} has no lora_{missing[0]}")
        a, b = (self._file.get_slice(self._keys[module, f]).get_shape() for f in "AB")
        if len(a) != 2 or len(b) != 2:
            raise AdzError(
                f"{self.label}: {module} is a convolution",
                "only linear layers and embeddings can be merged",
            )
        rank = int(_of_pattern(self.config, "rank_pattern", module, self.config.get("r", 8)))
        if not a[0] == b[1] == rank:
            raise AdzError(
                f"{self.label}: {module} has factors of rank {a[0]} and {b[1]}, "
                f"its {CONFIG} says {rank}"
            )
        return rank, b[0], a[1]

    def _scale(self, module: str) -> float:
        rank = self.modules[module][0]
        alpha = _of_pattern(self.config, "alpha_pattern", module, self.config.get("lora_alpha", 8))
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether there is neither NaN nor infinity. A finite sum proves it, at a tenth of the cost of
    `torch.isfinite`; only very large numbers have none, and their extremes are looked at."""
    if tensor.numel() == 0 or math.isfinite(float(tensor.sum())):
        return True
    return all(map(math.isfinite, map(float, torch.aminmax(tensor))))


def _of_pattern(config: Mapping[str, Any], pattern: str, module: str, default: Any) -> Any:
    # As PEFT's get_pattern_key: the first key that matches whole names up to the end.
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _read_config(label: str, directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdzError(f"{label} is not a PEFT directory: there is no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise AdzError(f"{label}: {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise AdzError(f"{label}: {CONFIG} is not a mapping")
    return config


def _open_weights(label: str, directory: Path) -> Any:
    try:
        return safe_open(directory / WEIGHTS, framework="pt")
    except FileNotFoundError:
        raise AdzError(f"{label} has no {WEIGHTS}", "pickled weights are not read") from None
    except (OSError, SafetensorError) as error:
        raise AdzError(f"{label}: {WEIGHTS} cannot be read: {error}") from error
