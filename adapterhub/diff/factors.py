"""What an adapter's file holds: low-rank updates by module, and other tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterhub.bases.adapter_files import WEIGHTS, lora_scale
from adapterhub.bases.arrays import read_array
from adapterhub.bases.headers import read_header
from adapterhub.bases.modules import split_key

Array = NDArray[np.float64]

# The factors that are multiplied from the right and from the left.
_RIGHT = ("lora_A.weight", "lora_embedding_A")
_LEFT = ("lora_B.weight", "lora_embedding_B")
# With these the product of the factors is not the update.
_NOT_A_PRODUCT = ("target_parameters", "layer_replication", "use_bdlora", "use_qalora")


class AdapterTensors:
    """The tensors of one adapter, read when they are asked for.

    modules: those whose update is a product of two factors. others: the tensors that are no such
    factor, such as a prefix, IA3's scales, DoRA's magnitudes or a whole trained module.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self._file = directory / WEIGHTS
        self._config = config
        self._tensors = read_header(self._file)
        pairs: dict[str, dict[str, str]] = {}
        if config.get("peft_type") == "LORA" and not any(map(config.get, _NOT_A_PRODUCT)):
            for name in self._tensors:
                key = split_key(name)
                if key is not None and key.parameter in _RIGHT + _LEFT:
                    pairs.setdefault(key.module, {})[key.parameter] = name
        self._pairs = {
            module: (right[0], left[0])
            for module, found in pairs.items()
            if (right := [found[p] for p in _RIGHT if p in found])
            and (left := [found[p] for p in _LEFT if p in found])
        }
        factors = {name for pair in self._pairs.values() for name in pair}
        self.modules = frozenset(self._pairs)
        self.others = frozenset(self._tensors) - factors

    def rank(self, module: str) -> int:
        """The rank of a module's factors."""
        return self._tensors[self._pairs[module][0]].shape[0]

    def update(self, module: str) -> tuple[Array, Array]:
        """(m, r) and (r, n), whose product is the module's update with its scale. A
        convolution's factors are flattened, an embedding's update is transposed."""
        names = self._pairs[module]
        right, left = (read_array(self._file, self._tensors[name]) for name in names)
        rank = right.shape[0]
        scale = lora_scale(self._config, module, rank)
        return scale * left.reshape(-1, rank), right.reshape(rank, -1)

    def other(self, name: str) -> Array:
        """One of `others`."""
        return read_array(self._file, self._tensors[name])
