"""The gate of mergeable methods: with the adapter folded in, the base answers as it does under it.

A merged copy would be the largest thing that a training holds. Where the method folds weight by
weight, as an export does, a folded weight is there only while its layer computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adapterhub.models import share_weights
from adapterhub.protocols import Fold, FoldingMethod, Method
from adapterhub.train.gates import check_merge, probe
from adapterhub.train.memory import has_room
from adapterhub.train.run import Run


def check_merged(
    run: Run, base: Any, method: Method, payload: Path, adapted: torch.Tensor
) -> float:
    """Fold the adapter that is stored in `payload` into `base`, which stays as it is; return the
    relative difference of the logits.

    adapted: what `probe` finds with the stored adapter over the base. Raises AdzError as
    `check_merge`.
    """
    if base.dtype == torch.float32 and isinstance(method, FoldingMethod):
        model: Any = share_weights(base)
        named = model.named_parameters(remove_duplicate=False)
        folds = method.fold(payload, {name: tuple(p.shape) for name, p in named})
        if folds:
            with _folded(model, folds) as used:
                merged = probe(model, run.train_rows, run.collate)
            if used == folds.keys():
                return check_merge(adapted, merged)
    return _check_copy(run, base, method, payload)


@contextmanager
def _folded(model: torch.nn.Module, folds: Mapping[str, Fold]) -> Iterator[set[str]]:
    """Within the block every layer computes with its weights folded; yields the names of those
    that were. A layer whose weights are used by another is not."""
    used: set[str] = set()
    handles = []
    for path, module in model.named_modules():
        names = {part: f"{path}.{part}" for part, _ in module.named_parameters(recurse=False)}
        own = {part: folds[name] for part, name in names.items() if name in folds}
        if own:
            begin, end = _fold_while_computing(own, {p: names[p] for p in own}, used)
            handles.append(module.register_forward_pre_hook(begin))
            handles.append(module.register_forward_hook(end, always_call=True))
    try:
        yield used
    finally:
        for handle in handles:
            handle.remove()


def _fold_while_computing(
    folds: Mapping[str, Fold], names: Mapping[str, str], used: set[str]
) -> tuple[Callable[..., None], Callable[..., None]]:
    plain: dict[str, torch.nn.Parameter] = {}

    def begin(module: torch.nn.Module, inputs: Any) -> None:
        for part, fold in folds.items():
            plain[part] = module.get_parameter(part)
            weight = fold(plain[part].data.cpu()).to(plain[part].device)
            setattr(module, part, torch.nn.Parameter(weight, requires_grad=False))
            used.add(names[part])

    def end(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        for part, parameter in plain.items():
            setattr(module, part, parameter)
        plain.clear()

    return begin, end


def _check_copy(run: Run, base: Any, method: Method, payload: Path) -> float:
    """The method's own merge, which writes into weights, and others share those."""
    plain: Any = share_weights(base, _weights_of(run, base))
    if plain.dtype != torch.float32 and has_room(plain, torch.float32):
        # Short weights round the sum away, which says nothing of the method.
        plain = plain.float()
    own: Any = method.load(plain, payload)
    adapted = probe(own, run.train_rows, run.collate)
    merged = probe(own.merge_and_unload(), run.train_rows, run.collate)
    return check_merge(adapted, merged, plain.dtype)


def _weights_of(run: Run, base: Any) -> Iterator[torch.Tensor]:
    """What a merge may write into: all of the base but the embeddings and the output layer, where
    the run does not adapt them.

    Of a layer that shares what is trained with others, as in TinyLoRA, only one is among
    `run.layers`, whose names have something in front of the base's.
    """
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    for name, module in base.named_modules():
        adapted = any(layer == name or layer.endswith(f".{name}") for layer in run.layers)
        if adapted or module not in ends:
            yield from module.parameters(recurse=False)
