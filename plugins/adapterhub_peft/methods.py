"""PEFT's methods: one configuration each, attached, saved and loaded alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from peft.utils import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import save_file

from adapterhub.errors import usage_error
from adapterhub.protocols import Fold, WeightUpdate
from adapterhub_peft.fold import fold_ia3, fold_lora
from adapterhub_peft.options import Ia3Options, LoraOptions, PrefixOptions, PromptOptions
from adapterhub_peft.targets import check_targets
from adapterhub_peft.updates import weight_updates

WEIGHTS = "adapter_model.safetensors"
CONFIGURATION = "adapter_config.json"
CAUSAL = TaskType.CAUSAL_LM


class PeftMethod:
    """What every method of PEFT has in common."""

    def configuration(self, model: Any, options: Any) -> PeftConfig:
        """PEFT's configuration for these options; AdzError for a target that is not there."""
        raise NotImplementedError

    def attach(self, model: Any, options: Any, *, prepared: bool) -> Any:
        """The model with a fresh adapter, only whose parameters are trainable.

        The adapter's weights are float32, whatever holds the base.
        """
        return get_peft_model(model, self.configuration(model, options))

    def save(self, model: Any, directory: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them.

        Not by PEFT's `save_pretrained`: it writes sets in the order of the process's hashes,
        and a model card with a date of its own.
        """
        directory.mkdir(parents=True, exist_ok=True)
        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(plain, directory / WEIGHTS, metadata={"format": "pt"})
        settings = replace(model.peft_config["default"], inference_mode=True).to_dict()
        text = json.dumps(settings, indent=2, sort_keys=True, default=_plain)
        (directory / CONFIGURATION).write_text(text + "\n", encoding="utf-8")

    def load(self, model: Any, directory: Path) -> Any:
        """The base with the stored adapter, for inference."""
        return PeftModel.from_pretrained(model, str(directory), local_files_only=True)

    def updates(self, base: Any, adapted: Any) -> Mapping[str, WeightUpdate]:
        """What the adapter adds to each weight of the base."""
        return weight_updates(base, adapted)


class Lora(PeftMethod):
    """`lora`, `rslora` and `dora`."""

    def configuration(self, model: Any, options: LoraOptions) -> PeftConfig:
        """LoRA on the targets."""
        check_targets(model, options.targets, "method.targets")
        alpha = int(options.alpha) if options.alpha == int(options.alpha) else options.alpha
        return LoraConfig(
            task_type=CAUSAL,
            r=options.r,
            lora_alpha=alpha,
            lora_dropout=options.dropout,
            target_modules=options.targets,
            use_rslora=options.rslora,
            use_dora=options.dora,
        )

    def fold(
        self, directory: Path, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, Fold] | None:
        """Adds the product of the factors to each target."""
        return fold_lora(directory, shapes)


class Ia3(PeftMethod):
    """`ia3`."""

    def configuration(self, model: Any, options: Ia3Options) -> PeftConfig:
        """(IA)^3 on the targets."""
        kind = model.config.model_type
        targets = _known(options.targets, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING, kind)
        second = _known(
            options.feedforward, TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING, kind
        )
        check_targets(model, targets, "method.targets")
        check_targets(model, second, "method.feedforward")
        return IA3Config(task_type=CAUSAL, target_modules=targets, feedforward_modules=second)

    def fold(
        self, directory: Path, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, Fold] | None:
        """Scales each target."""
        return fold_ia3(directory, shapes)


class Prefix(PeftMethod):
    """`prefix`."""

    def configuration(self, model: Any, options: PrefixOptions) -> PeftConfig:
        """Prefix tuning without a projection."""
        return PrefixTuningConfig(task_type=CAUSAL, num_virtual_tokens=options.tokens)


class Prompt(PeftMethod):
    """`prompt`."""

    def configuration(self, model: Any, options: PromptOptions) -> PeftConfig:
        """Prompt tuning that begins at the embeddings of random tokens of the vocabulary."""
        return PromptTuningConfig(
            task_type=CAUSAL,
            num_virtual_tokens=options.tokens,
            prompt_tuning_init="SAMPLE_VOCAB",
        )


def _known(targets: str | list[str], by_kind: dict[str, list[str]], kind: str) -> str | list[str]:
    if targets != "auto":
        return targets
    if kind not in by_kind:
        raise usage_error(
            f"ia3 does not know which modules of {kind} to scale",
            "name them: -o method.targets=[...] -o method.feedforward=[...]",
        )
    return by_kind[kind]


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
