"""Reading PEFT LoRA directories: what they adapt, and one module's factors at a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from adapterhub.bases.adapter_files import CONFIG, WEIGHTS
from adapterhub.bases.modules import PREFIX
from adapterhub.errors import AdzError
from adapterhub.moments import MomentsFile
from adapterhub.protocols import Factors

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")

# What makes an adapter more than B A, and what to do about it. `{}` is the option's value.
_CONVERT = "convert it to a plain LoRA first"
_REFUSED_OPTIONS = {
    "use_dora": f"is DoRA, whose update depends on the base's weights; {_CONVERT}",
    "lora_bias": "has trained biases (lora_bias); train it without",
    "modules_to_save": "replaces whole modules ({}); train it without modules_to_save",
    "trainable_token_indices": "trains embeddings of single tokens; train it without",
    "target_parameters": "adapts bare parameters ({}); name modules instead",
    "layer_replication": "replicates layers of the base; train it without",
    "alora_invocation_tokens": f"is an activated LoRA (aLoRA); {_CONVERT}",
    "use_qalora": f"is QALoRA; {_CONVERT}",
    "use_bdlora": f"is a block-diagonal LoRA; {_CONVERT}",
}
# These initialisations subtract from the base's weights when PEFT loads the adapter.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


class LoraAdapter:
    """An open LoRA directory. `label` is what the user called it, and stands in every error.

    modules: module name, without PEFT's prefix, to its rank and shape (r, m, n).
    moments: the file of its input moments, where a merge needs them.
    base_changing: read the factors also of one that began as a part of the base's weights (PiSSA
    and the like), where they are not the update. Safe to read from several threads.
    """

    def __init__(self, label: str, directory: Path, *, base_changing: bool = False) -> None:
        self.label = label
        self.moments: MomentsFile | None = None
        self.config = _read_config(label, directory)
        if not base_changing:
            _refuse_base_changing(label, self.config)
        self._file, self._keys = _open_weights(label, directory)
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
        try:
            a, b = (self._file.get_tensor(self._keys[module, f]).float() for f in "AB")
        except SafetensorError as error:
            raise AdzError(f"{self.label}: {module} cannot be read: {error}") from error
        if not (is_finite(a) and is_finite(b)):
            raise AdzError(f"{self.label}: {module} holds NaN or infinity", "train it again")
        moments = self.moments.of(module, a.shape[1]) if self.moments else None
        return Factors(a=a, b=b, scale=self._scale(module), moments=moments)

    def _shape(self, module: str) -> tuple[int, int, int]:
        missing = [f for f in "AB" if (module, f) not in self._keys]
        if missing:
            raise AdzError(f"{self.label}: {module} has no lora_{missing[0]}")
        a, b = (self._file.get_slice(self._keys[module, f]).get_shape() for f in "AB")
        if len(a) != 2 or len(b) != 2:
            raise AdzError(
                f"{self.label}: {module} is not a linear layer", "only linear layers can be merged"
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
    """Whether there is neither NaN nor infinity; the extremes show both, at a tenth of the cost
    of `torch.isfinite`."""
    return tensor.numel() == 0 or all(map(math.isfinite, map(float, torch.aminmax(tensor))))


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
    if config.get("peft_type") != "LORA":
        raise AdzError(
            f"{label} is no LoRA adapter but {config.get('peft_type')}",
            "only LoRA adapters can be merged",
        )
    for option, reason in _REFUSED_OPTIONS.items():
        if config.get(option):
            raise AdzError(f"{label} {reason.format(config[option])}")
    if config.get("bias", "none") != "none":
        raise AdzError(f"{label} has trained biases (bias={config['bias']}); train it without")
    return config


def _refuse_base_changing(label: str, config: Mapping[str, Any]) -> None:
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_BASE_CHANGING_INITS):
        raise AdzError(f"{label} changes the base's weights (init_lora_weights={init}); {_CONVERT}")


def _open_weights(label: str, directory: Path) -> tuple[Any, dict[tuple[str, str], str]]:
    try:
        file: Any = safe_open(directory / WEIGHTS, framework="pt")
    except FileNotFoundError:
        raise AdzError(f"{label} has no {WEIGHTS}", "pickled weights are not read") from None
    except (OSError, SafetensorError) as error:
        raise AdzError(f"{label}: {WEIGHTS} cannot be read: {error}") from error
    return file, _factor_keys(label, file.keys())


def _factor_keys(label: str, names: Iterable[str]) -> dict[tuple[str, str], str]:
    keys = {}
    for name in names:
        match = _FACTOR.fullmatch(name)
        if not match:
            kind = "an embedding" if "lora_embedding" in name else "no factor of a linear layer"
            raise AdzError(f"{label}: {name} is {kind}", "only linear layers can be merged")
        keys[match["module"].removeprefix(PREFIX), match["factor"]] = name
    return keys
