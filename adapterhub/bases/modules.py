"""Which module of a base a tensor of an adapter belongs to.

PEFT writes `base_model.model.<module>.<parameter>`, such as
`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.bases.digests import read_config, read_tensors, weight_files
from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.scan import FLOATS
from adapterhub.manifest import BaseRecord

PREFIX = "base_model.model."
MAX_RANK = 512
"""The highest rank that an engine serves, so the highest that is stored."""
LOW_RANK_PAIRS = {
    "lora_A.weight": "lora_B.weight",
    "lora_A": "lora_B",
    "lora_embedding_A": "lora_embedding_B",
}
"""The two factors of a low-rank module, as LoRA, AdaLoRA and embeddings call them."""

# How the parameters of PEFT's methods begin; a test compares this with PEFT's own list.
_PARAMETER = re.compile(
    r"(?:adamss|adaption|beft|boft|c3a|cartridge|deft|delora|fourierft|frod|glora|gralora|hada"
    r"|hira|hra|ia3|lily|ln_tuning|lokr|lora|miss|oft|osf|peanut|poly|psoft|pvera|randlora|road"
    r"|shadow|shira|supertuning|tinylora|trainable_tokens|unilora|vblora|vera|waveft|xlora)_.*"
    r"|token_adapter"
)
# transformers names the inner model so; a file saved from the inner model lacks the name.
_INNER = ("model", "transformer", "gpt_neox", "backbone")
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
# What a model that sees and reads is called when it is loaded, and in older files.
_RENAMED = (
    ("model.language_model.", "language_model.model."),
    ("model.language_model.", "model."),
    ("model.visual.", "visual."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    # An adapter that was made when they were loaded as they were stored, on a newer file.
    ("language_model.model.", "model.language_model."),
    ("visual.", "model.visual."),
)
_HEADS = ("lm_head", "embed_out", "output")


@dataclass(frozen=True, slots=True)
class AdapterKey:
    """A tensor's name taken apart.

    module: the base's module. parameter: what follows it, such as `lora_A.weight`.
    added: a parameter of the method; otherwise a whole tensor of the base that was trained.
    """

    module: str
    parameter: str
    added: bool


# An adapter has hundreds of tensors, and the next one has the same names.
@functools.lru_cache(maxsize=8192)
def split_key(key: str) -> AdapterKey | None:
    """Take a name apart as PEFT does; None when it is not below `base_model.model.`, where
    PEFT would ignore it."""
    if not key.startswith(PREFIX):
        return None
    # PEFT wraps a layer and keeps the original one as `base_layer`.
    parts = [part for part in key.removeprefix(PREFIX).split(".") if part != "base_layer"]
    for position, part in enumerate(parts):
        if _PARAMETER.fullmatch(part):
            return AdapterKey(".".join(parts[:position]), ".".join(parts[position:]), True)
    return AdapterKey(".".join(parts[:-1]), parts[-1], False)


def is_vocabulary(module: str) -> bool:
    """Whether a module has one row a token, and grows with new ones: embedding or head."""
    return module.rpartition(".")[2] in (*_EMBEDDINGS, *_HEADS)


class BaseModules:
    """The modules of a base, from the headers of its files."""

    def __init__(self, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> None:
        self.config = config
        self._weights: dict[str, tuple[int, ...] | None] = {}
        self._roots = {name.partition(".")[0] for name in tensors}
        for name, info in tensors.items():
            module, _, parameter = name.rpartition(".")
            # A quantised weight is packed: its shape says nothing about the module's.
            shape = info.shape if parameter == "weight" and info.dtype in FLOATS else None
            self._weights[module] = shape or self._weights.get(module)
            while "." in module:
                module = module.rpartition(".")[0]
                self._weights.setdefault(module, None)

    @staticmethod
    def read(record: BaseRecord) -> BaseModules:
        """Read the headers of a base's files, unless they are those of the last calls."""
        directory = Path(record.path)
        files = [*weight_files(directory), directory / "config.json"]
        stamps = tuple(_stamp(file) for file in files if file.exists())
        return _read(directory, stamps)

    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight that is known, by module."""
        return {name: shape for name, shape in self._weights.items() if shape is not None}

    def __contains__(self, module: str) -> bool:
        return self._find(module) is not None

    def weight_shape(self, module: str) -> tuple[int, ...] | None:
        """The shape of a module's weight; None where it has none or it is not known."""
        found = self._find(module)
        return None if found is None else self._weights[found]

    def weight_name(self, module: str) -> str | None:
        """What the base's files call a module's weight; None where it is not there."""
        found = self._find(module)
        return None if found is None or self._weights[found] is None else f"{found}.weight"

    def _find(self, module: str) -> str | None:
        if module in self._weights:
            return module
        for name in self._names(module):
            if name in self._weights:
                return name
        return None

    def _names(self, module: str) -> list[str]:
        """The other names that a file may use for a module of the loaded model."""
        names = []
        root, _, rest = module.partition(".")
        if root in _INNER and root not in self._roots:
            names.append(rest)
        # transformers renames these when it loads a model that sees and reads.
        names += [
            stored + module.removeprefix(loaded)
            for loaded, stored in _RENAMED
            if module.startswith(loaded)
        ]
        # A head tied to the embedding is not in the file.
        if module in _HEADS:
            names += [name for name in self._weights if name.rpartition(".")[2] in _EMBEDDINGS]
        return names


@functools.lru_cache(maxsize=4)
def _read(directory: Path, stamps: tuple[tuple[Any, ...], ...]) -> BaseModules:
    return BaseModules(read_tensors(directory), read_config(directory))


def _stamp(file: Path) -> tuple[Any, ...]:
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns, status.st_ino
