"""How PEFT's adapters change the base's weights, one tensor at a time, without PEFT's model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adapterhub.bases.adapter_files import CONFIG, WEIGHTS, lora_scale
from adapterhub.bases.headers import TensorInfo, read_header
from adapterhub.bases.modules import split_key
from adapterhub.bases.tensors import read_tensor
from adapterhub.errors import AdzError
from adapterhub.protocols import Fold

Read = Callable[[], torch.Tensor]

# Options that make an adapter more than these formulas. PEFT itself merges what it can of them.
_ONLY_PEFT = (
    "alora_invocation_tokens", "arrow_config", "ensure_weight_tying", "kasa_config",
    "layer_replication", "monteclora_config", "target_parameters", "trainable_token_indices",
    "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
# Initialisations by these names, or by False, leave the base's weights as they are.
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


def fold_lora(directory: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Fold] | None:
    """W + s B A; with DoRA m (W + s B A) / ||W + s B A||, the norm of each row."""
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    modules, folds = _stored(directory)
    if any(config.get(option) for option in _ONLY_PEFT):
        return None
    if config.get("init_lora_weights", True) not in _PLAIN_INITS:
        return None
    for module, parameters in modules.items():
        weight, bias = f"{module}.weight", f"{module}.bias"
        names = {name.removesuffix(".weight") for name in parameters}
        embedding = "lora_embedding_A" in names
        known = {"lora_A", "lora_B", "lora_B.bias", "lora_magnitude_vector"}
        if embedding:
            known = {"lora_embedding_A", "lora_embedding_B"}
        if len(shapes.get(weight, ())) != 2 or weight in folds or not names <= known:
            return None
        a, b = (_parameter(parameters, f"lora_{'embedding_' * embedding}{f}") for f in "AB")
        if a is None or b is None:
            raise AdzError(f"{module} has one factor of two", "fetch the adapter again")
        folds[weight] = partial(
            _add_product,
            (a, b),
            scale=_scale(config, module, parameters),
            magnitude=_parameter(parameters, "lora_magnitude_vector"),
            transposed=embedding or bool(config.get("fan_in_fan_out")),
        )
        added = parameters.get("lora_B.bias")
        if added is not None:
            if bias not in shapes:
                raise AdzError(
                    f"{module} has no bias in the base, and the adapter trained one (lora_bias)",
                    "it cannot be folded in; serve it, or train without lora_bias",
                )
            folds[bias] = partial(_add, added[1], scale=_scale(config, module, parameters))
    return folds


def fold_ia3(directory: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Fold] | None:
    """Rows, or the columns of a feed-forward layer, times the learnt scale."""
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    modules, folds = _stored(directory)
    for module, parameters in modules.items():
        weight, bias = f"{module}.weight", f"{module}.bias"
        scale = _parameter(parameters, "ia3_l")
        if set(parameters) != {"ia3_l"} or scale is None or len(shapes.get(weight, ())) != 2:
            return None
        folds[weight] = partial(_scaled, scale, transposed=bool(config.get("fan_in_fan_out")))
        # PEFT's shape tells the side: (out, 1) scales outputs, and so the bias; (1, in) inputs.
        if bias in shapes and parameters["ia3_l"][0].shape[1] == 1:
            folds[bias] = partial(_scaled_bias, scale)
    return folds


def _stored(
    directory: Path,
) -> tuple[dict[str, dict[str, tuple[TensorInfo, Read]]], dict[str, Fold]]:
    """The method's parameters by module, and the whole tensors that stand for the base's."""
    file = directory / WEIGHTS
    modules: dict[str, dict[str, tuple[TensorInfo, Read]]] = defaultdict(dict)
    replaced: dict[str, Fold] = {}
    for name, info in read_header(file).items():
        key = split_key(name)
        if key is None:
            continue
        read = partial(read_tensor, file, info)
        if key.added:
            modules[key.module][key.parameter] = (info, read)
        else:
            replaced[f"{key.module}.{key.parameter}"] = partial(_replace, read)
    return modules, replaced


def _parameter(parameters: Mapping[str, tuple[TensorInfo, Read]], name: str) -> Read | None:
    found = parameters.get(name) or parameters.get(f"{name}.weight")
    return found[1] if found else None


def _scale(
    config: Mapping[str, Any], module: str, parameters: Mapping[str, tuple[TensorInfo, Read]]
) -> float:
    factor = next(n for n in parameters if n.removesuffix(".weight").endswith("_A"))
    return lora_scale(config, module, rank=parameters[factor][0].shape[0])


def _add_product(
    factors: tuple[Read, Read],
    weight: torch.Tensor,
    *,
    scale: float,
    magnitude: Read | None,
    transposed: bool,
) -> torch.Tensor:
    a, b = (read().to(weight.dtype) for read in factors)
    update = b @ a
    result = torch.add(weight, update.T if transposed else update, alpha=scale)
    if magnitude is None:
        return result
    norm = torch.linalg.vector_norm(result, dim=0 if transposed else 1, keepdim=True)
    rows = magnitude().to(weight.dtype).reshape(norm.shape) / norm
    return result.mul(rows)


def _add(read: Read, bias: torch.Tensor, *, scale: float) -> torch.Tensor:
    return torch.add(bias, read().to(bias.dtype), alpha=scale)


def _scaled(read: Read, weight: torch.Tensor, *, transposed: bool) -> torch.Tensor:
    scale = read().to(weight.dtype)
    return weight * (scale.T if transposed else scale)


def _scaled_bias(read: Read, bias: torch.Tensor) -> torch.Tensor:
    return bias * read().to(bias.dtype).flatten()


def _replace(read: Read, tensor: torch.Tensor) -> torch.Tensor:
    value = read()
    if value.shape != tensor.shape:
        raise AdzError(
            f"the adapter replaces a tensor of {tuple(tensor.shape)} by one of "
            f"{tuple(value.shape)}",
            "a vocabulary that grew cannot be folded in",
        )
    return value.to(tensor.dtype)
