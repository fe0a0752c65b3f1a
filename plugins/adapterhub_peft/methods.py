"""PEFT's methods: one configuration each, attached, saved and loaded alike."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from peft.utils import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from peft.utils.save_and_load import get_peft_model_state_dict
from pydantic import BaseModel
from safetensors.torch import save_file

from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import Fold, LowRank, WeightUpdate
from adapterhub_peft.fold import fold_ia3
from adapterhub_peft.low_rank import low_rank
from adapterhub_peft.options import PeftOptions
from adapterhub_peft.targets import (
    ALL_LINEAR,
    AUTO,
    check_targets,
    linear_layers,
    norm_layers,
)
from adapterhub_peft.updates import weight_updates

WEIGHTS = "adapter_model.safetensors"
CONFIGURATION = "adapter_config.json"
ADAPTER = "default"


class PeftMethod:
    """What every method of PEFT has in common."""

    def configuration(self, model: Any, options: PeftOptions) -> PeftConfig:
        """PEFT's configuration for these options; AdzError for a target that is not there."""
        fields = {name: _plain_value(value) for name, value in options.fields().items()}
        fields |= self.choices(model, options)
        for field, name in (("target_modules", "targets"), ("feedforward_modules", "feedforward")):
            if fields.get(field) == AUTO:
                fields[field] = None
            elif fields.get(field) is not None:
                check_targets(model, fields[field], f"method.{name}")
                if fields[field] == ALL_LINEAR:
                    fields[field] = linear_layers(model)
        config: PeftConfig = getattr(peft, options.kind.config)(
            task_type=TaskType.CAUSAL_LM, **fields
        )
        return config

    def choices(self, model: Any, options: Any) -> dict[str, Any]:
        """Fields of the configuration, by PEFT's names, that follow from the base."""
        return {}

    def attach(self, model: Any, options: PeftOptions, *, prepared: bool) -> Any:
        """The model with a fresh adapter, only whose parameters are trainable.

        The adapter's weights are float32, whatever holds the base.
        """
        with warnings.catch_warnings():
            # Of layers that store their weights transposed, for which PEFT does the right thing.
            warnings.filterwarnings("ignore", message=".*fan_in_fan_out")
            try:
                return get_peft_model(model, self.configuration(model, options))
            except (AdzError, torch.OutOfMemoryError, MemoryError):
                raise
            # PEFT refuses what does not fit in as many ways as it has methods.
            except Exception as error:
                raise _refused(model, options, error) from error

    def save(self, model: Any, directory: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them.

        Not by PEFT's `save_pretrained`: it writes sets in the order of the process's hashes,
        and a model card with a date of its own.
        """
        directory.mkdir(parents=True, exist_ok=True)
        tensors, settings = self.stored(model)
        plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(plain, directory / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True, default=_plain)
        (directory / CONFIGURATION).write_text(text + "\n", encoding="utf-8")

    def stored(self, model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The adapter's tensors and its configuration, as PEFT would store them."""
        config = copy.copy(model.peft_config[ADAPTER])
        config.inference_mode = True
        return get_peft_model_state_dict(model, save_embedding_layers=False), config.to_dict()

    def load(self, model: Any, directory: Path) -> Any:
        """The base with the stored adapter, for inference."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fan_in_fan_out")
            return PeftModel.from_pretrained(model, str(directory), local_files_only=True)

    def updates(self, base: Any, adapted: Any) -> Mapping[str, WeightUpdate]:
        """What the adapter adds to each weight of the base."""
        return weight_updates(base, adapted)

    def low_rank(self, layer: torch.nn.Module) -> LowRank | None:
        """The parts of a plain LoRA of one adapter over a linear layer."""
        return low_rank(layer)


class Ia3(PeftMethod):
    """`ia3`."""

    def choices(self, model: Any, options: Any) -> dict[str, Any]:
        """What the paper scales, for `auto`."""
        kind = model.config.model_type
        return {
            "target_modules": _known(
                options.targets, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING, kind
            ),
            "feedforward_modules": _known(
                options.feedforward, TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING, kind
            ),
        }

    def fold(
        self, directory: Path, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, Fold] | None:
        """Scales each target."""
        return fold_ia3(directory, shapes)


class LnTuning(PeftMethod):
    """`ln_tuning`."""

    def choices(self, model: Any, options: Any) -> dict[str, Any]:
        """Every normalisation layer, for `auto`: PEFT knows few architectures."""
        return {"target_modules": norm_layers(model)} if options.targets == AUTO else {}


class AdaptionPrompt(PeftMethod):
    """`adaption_prompt`."""

    def choices(self, model: Any, options: Any) -> dict[str, Any]:
        """Every layer, where their number is not given."""
        layers = options.adapter_layers
        return {"adapter_layers": model.config.num_hidden_layers if layers is None else layers}


def _refused(model: Any, options: PeftOptions, error: Exception) -> AdzError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    name = options.kind.config.removesuffix("Config")
    if next(model.parameters()).is_meta and "meta" in reason.lower():
        return usage_error(
            f"{name} computes its beginning from the base's weights, which a dry run does not load",
            "train without --dry-run",
        )
    near = [
        f"method.{option}"
        for option, known in options.kind.options.items()
        if option in type(options).model_fields
        and re.search(rf"\b{known.field.replace('_', '[ _]')}\b", reason)
    ]
    hint = f"change {' or '.join(near[:3])}" if near else "choose other options or another method"
    return usage_error(f"{name} cannot be put on {type(model).__name__}: {reason}", hint)


def _known(targets: str | list[str], by_kind: dict[str, list[str]], kind: str) -> str | list[str]:
    if targets != AUTO:
        return targets
    if kind not in by_kind:
        raise usage_error(
            f"ia3 does not know which modules of {kind} to scale",
            "name them: -o method.targets=[...] -o method.feedforward=[...]",
        )
    return by_kind[kind]


def _plain_value(value: Any) -> Any:
    """A nested configuration of ours as PEFT's class of the same name; a whole float as int."""
    if isinstance(value, BaseModel):
        own = type(value).__name__
        return getattr(peft, own)(**value.model_dump())
    return int(value) if isinstance(value, float) and value == int(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
