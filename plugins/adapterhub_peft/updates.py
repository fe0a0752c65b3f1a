"""What an adapter of PEFT adds to each weight of its base, in float64.

PEFT's layers fold themselves into a copy of the weight; the difference is the update. Every
layer is then asked to answer for a few inputs: one that answers otherwise than its update
would (a bias, a gate, an update for some tokens only) is no update of a weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from adapterhub.errors import AdzError
from adapterhub.protocols import WeightUpdate

ADAPTER = "default"
# Some layers work in float32 inside, whatever they are given.
_TOLERANCE = 1e-4
_ROUNDING = 1e-6
_PROBES = 8


def weight_updates(base: torch.nn.Module, adapted: Any) -> Mapping[str, WeightUpdate]:
    """The update of every module that PEFT's `adapted` changes; `base` is as it was loaded."""
    found: dict[str, WeightUpdate] = {}
    for name, layer in adapted.get_base_model().named_modules():
        if isinstance(layer, ModulesToSaveWrapper):
            found[name] = _of_replaced(name, base.get_submodule(name), layer)
        elif isinstance(layer, AuxiliaryTrainingWrapper):
            raise AdzError(
                f"{name} trains single tokens, which a LoRA cannot", "train it without them"
            )
        elif isinstance(layer, BaseTunerLayer):
            found[name] = _of_layer(name, base.get_submodule(name), layer)
    return found


def _of_layer(name: str, module: torch.nn.Module, layer: Any) -> WeightUpdate:
    return _update(name, module, partial(_folded, name, module, layer))


def _of_replaced(name: str, module: torch.nn.Module, wrapper: Any) -> WeightUpdate:
    new = wrapper.modules_to_save[ADAPTER]
    return _update(name, module, partial(_replaced, name, module, new))


def _update(name: str, module: torch.nn.Module, compute: Any) -> WeightUpdate:
    weight: Any = getattr(module, "weight", None)
    if not isinstance(module, torch.nn.Linear | torch.nn.Embedding | Conv1D):
        kind = type(module).__name__
        raise AdzError(
            f"{name} is a {kind}, and a LoRA changes linear layers and embeddings only",
            "serve the adapter as it is",
        )
    if not weight.is_floating_point() or weight.dim() != 2:
        raise AdzError(
            f"{name} is stored quantised, and an update cannot be told from packed weights",
            "convert over the same base in plain floats: --base NAME",
        )
    rows, columns = weight.shape
    if isinstance(module, torch.nn.Embedding):
        return WeightUpdate("embedding", (rows, columns), compute)
    if isinstance(module, Conv1D):
        return WeightUpdate("transposed", (columns, rows), compute)
    return WeightUpdate("linear", (rows, columns), compute)


@torch.no_grad()
def _folded(name: str, module: Any, layer: Any) -> torch.Tensor:
    weight: torch.Tensor = module.weight.double()
    own = copy.deepcopy(layer).double().eval()
    inputs = _inputs(module, weight)
    try:
        before = _plain(module, weight, inputs)
        answers = own(inputs) - before
        own.merge(safe_merge=False, adapter_names=[ADAPTER])
    # Layers are PEFT's code and refuse what they cannot in many ways.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise AdzError(
            f"{name} cannot be folded into its weight: {reason}", "serve the adapter as it is"
        ) from error
    update: torch.Tensor = own.get_base_layer().weight - weight
    expected = _plain(module, update, inputs, bias=False)
    allowed = _TOLERANCE * float(answers.norm()) + _ROUNDING * float(before.norm())
    if float((answers - expected).norm()) > allowed:
        raise AdzError(
            f"{name} does more than add to its weight (a bias, or not to every token)",
            "a LoRA cannot; serve the adapter as it is",
        )
    return update.T if isinstance(module, Conv1D) else update


@torch.no_grad()
def _replaced(name: str, module: Any, new: Any) -> torch.Tensor:
    old_bias: Any = getattr(module, "bias", None)
    new_bias: Any = getattr(new, "bias", None)
    if new.weight.shape != module.weight.shape:
        raise AdzError(
            f"{name} is replaced by one of another shape: {tuple(new.weight.shape)}, not "
            f"{tuple(module.weight.shape)}",
            "a vocabulary that grew cannot be converted",
        )
    if (old_bias is None) != (new_bias is None) or (
        old_bias is not None and not torch.equal(old_bias, new_bias)
    ):
        raise AdzError(f"{name} is replaced with another bias", "a LoRA has no bias")
    update: torch.Tensor = new.weight.double() - module.weight.double()
    return update.T if isinstance(module, Conv1D) else update


def _inputs(module: Any, weight: torch.Tensor) -> torch.Tensor:
    if isinstance(module, torch.nn.Embedding):
        return torch.arange(0, len(weight), max(1, len(weight) // 64))[None]
    width = weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, _PROBES, width, dtype=torch.float64, generator=generator)


def _plain(
    module: Any, weight: torch.Tensor, inputs: torch.Tensor, *, bias: bool = True
) -> torch.Tensor:
    if isinstance(module, torch.nn.Embedding):
        return functional.embedding(inputs, weight)
    added = module.bias.double() if bias and module.bias is not None else None
    return functional.linear(inputs, weight.T if isinstance(module, Conv1D) else weight, added)
