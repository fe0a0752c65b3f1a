"""LoRA and what begins or scales it otherwise; each is stored as a plain LoRA."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import EvaConfig, initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer

from adapterhub.errors import usage_error
from adapterhub.protocols import Fold
from adapterhub_peft.fold import fold_lora
from adapterhub_peft.methods import ADAPTER, PeftMethod
from adapterhub_peft.options import PeftOptions
from adapterhub_peft.targets import ALL_LINEAR, AUTO, check_parameters, expert_parameters

# Beginnings that are taken out of the base's weights while training.
_TAKEN_OUT = ("pissa", "olora")
_BEGINNING = "adapterhub_beginning"


class Lora(PeftMethod):
    """`lora`, `rslora`, `dora` and `pissa`."""

    def choices(self, model: Any, options: Any) -> dict[str, Any]:
        """The fused experts of a mixture beside all linear layers, for `auto`."""
        parameters = options.parameters
        if parameters == AUTO:
            parameters = expert_parameters(model) if options.targets == ALL_LINEAR else []
            if parameters and options.fields()["use_dora"]:
                raise usage_error(
                    f"DoRA cannot adapt the experts of {type(model).__name__}",
                    "-o method.parameters=[] leaves them frozen, --method lora adapts them",
                )
        elif parameters:
            check_parameters(model, parameters, "method.parameters")
        return {"target_parameters": parameters or None}

    def attach(self, model: Any, options: PeftOptions, *, prepared: bool) -> Any:
        """The model with a fresh adapter; what a beginning takes out of the weights is kept, so
        that the stored adapter is one of the untouched base."""
        init = str(options.fields()["init_lora_weights"]).lower()
        if prepared and init.startswith(_TAKEN_OUT):
            raise usage_error(
                f"method.init={init} takes its beginning out of weights in plain floats",
                "train without a quantizer, or with method.init=true",
            )
        adapted = super().attach(model, options, prepared=prepared)
        if init.startswith(_TAKEN_OUT):
            factors = {n: t.clone() for n, t in super().stored(adapted)[0].items()}
            setattr(adapted, _BEGINNING, factors)
        return adapted

    def stored(self, model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """A plain LoRA of the untouched base.

        W + dW = (W - s B0 A0) + s B A, so dW = s [B, -B0] [A; A0], of twice the rank.
        """
        tensors, settings = super().stored(model)
        settings["init_lora_weights"] = True
        settings["eva_config"] = None
        # EVA puts down a list of whole names, in the order of the model.
        if isinstance(settings["target_modules"], list):
            settings["target_modules"] = sorted(settings["target_modules"])
        beginning = getattr(model, _BEGINNING, None)
        if beginning is None:
            return tensors, settings
        doubled = {}
        for name, tensor in tensors.items():
            first = beginning[name].to(tensor.device)
            if ".lora_A." in name or name.endswith(".lora_embedding_A"):
                tensor = torch.cat([tensor, first], dim=0)
            elif ".lora_B." in name or name.endswith(".lora_embedding_B"):
                tensor = torch.cat([tensor, -first], dim=1)
            doubled[name] = tensor
        # The scale stays: alpha / r, or alpha / sqrt(r).
        factor = math.sqrt(2) if settings["use_rslora"] else 2
        settings["r"] *= 2
        settings["lora_alpha"] *= factor
        settings["rank_pattern"] = {n: 2 * r for n, r in settings["rank_pattern"].items()}
        settings["alpha_pattern"] = {n: factor * a for n, a in settings["alpha_pattern"].items()}
        return doubled, settings

    def fold(
        self, directory: Path, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, Fold] | None:
        """Adds the product of the factors to each target."""
        return fold_lora(directory, shapes)


class Eva(Lora):
    """`eva`: Paischer et al., arXiv:2410.07170."""

    def choices(self, model: Any, options: Any) -> dict[str, Any]:
        """One rank for all layers, which vLLM serves, unless `eva.rho` says otherwise."""
        found = super().choices(model, options)
        return found if options.eva else found | {"eva_config": EvaConfig(rho=1.0)}

    def calibrate(self, model: Any, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """Begin at the right singular vectors of what each target reads on the batches."""
        initialize_lora_eva_weights(model, list(batches), show_progress_bar=False)


class LoftQ(Lora):
    """`loftq`: Li et al., arXiv:2310.08659, with one step, over the base as the quantizer holds
    it."""

    def attach(self, model: Any, options: PeftOptions, *, prepared: bool) -> Any:
        """A fresh LoRA whose product is nearest to what the quantizer lost."""
        from adapterhub_peft.residual import begin_at_residual

        adapted = super().attach(model, options, prepared=prepared)
        if next(model.parameters()).is_meta:
            # A dry run: shapes only.
            return adapted
        layers = {
            name: layer
            for name, layer in adapted.get_base_model().named_modules()
            if isinstance(layer, LoraLayer)
        }
        begin_at_residual(layers, Path(model.config._name_or_path), ADAPTER)
        return adapted
