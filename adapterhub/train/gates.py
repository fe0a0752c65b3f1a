"""What refuses a bad run: before the first step, and before the commit.

Every gate raises AdzError (exit code 3) that says what is wrong. They guard against what users
suffer from: an answer that never stops, a mask that is off, layers that do not learn, an
adapter that does nothing or is another one after loading.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from adapterhub.train.batches import Batch, Collator
from adapterhub.train.loss import completion_loss, evaluating, last_logits
from adapterhub.train.row_gates import refusal
from adapterhub.train.rows import Rows

RELOAD_TOLERANCE = 1e-5
"""Largest difference of logits that storing may make, relative to the largest logit."""

MERGE_TOLERANCE = 1e-3
"""Largest difference of logits that merging may make, relative to the largest logit."""

PROBED_ROWS, PROBED_TOKENS = 4, 16
"""How many rows are answered to compare models, and after how many tokens of each, at most."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What a backward pass found. layers: the names of the adapted ones. unused: some trainable
    parameter took no part in the loss, so that it has no gradient at all."""

    layers: frozenset[str]
    unused: bool


def check_gradients(model: torch.nn.Module, adapted: Mapping[str, str], batch: Batch) -> Reached:
    """The gradients of a batch reach every adapted layer.

    adapted: as `adapted_layers` gives it. Row by row, until all are reached: a whole batch at once
    would need more memory than training does. Gradients and the random state are afterwards as
    they were.
    """
    if not adapted:
        raise refusal("nothing is trainable", "the method attached no parameter")
    layers = dict.fromkeys(adapted.values())
    with _random_state_kept(batch["input_ids"].device):
        for row in range(len(batch["input_ids"])):
            loss, tokens = completion_loss(model, {k: v[row : row + 1] for k, v in batch.items()})
            if not torch.isfinite(loss):
                raise refusal(f"the first loss is {loss.item()}", "the base or the data is broken")
            torch.autograd.backward(loss / tokens)
            gradients = {name: model.get_parameter(name).grad for name in adapted}
            unused = any(gradient is None for gradient in gradients.values())
            learning = {
                adapted[n] for n, g in gradients.items() if g is not None and g.count_nonzero()
            }
            dead = [layer for layer in layers if layer not in learning]
            if not dead and not unused:
                break
    model.zero_grad(set_to_none=True)
    if dead:
        more = f" and {len(dead) - 3} more" if len(dead) > 3 else ""
        shown = ", ".join(name or type(model).__name__ for name in dead[:3])
        raise refusal(
            f"no gradient reaches {shown}{more}",
            f"{len(dead)} of {len(layers)} adapted layers would not learn",
        )
    return Reached(frozenset(layers), unused)


def _random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    """Of the CPU, and of the accelerator where the model is on one: dropout draws there."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


@torch.no_grad()
def probe(model: torch.nn.Module, rows: Rows, collate: Collator) -> torch.Tensor:
    """Logits after the last tokens of the first rows, (tokens, vocabulary) float32 on the CPU.

    Every token before them has a part in these; all positions would be as large as the base.
    """
    batch = collate([rows[index] for index in range(min(len(rows), PROBED_ROWS))])
    device = next(model.parameters()).device
    with evaluating(model):
        logits = last_logits(model, {k: v.to(device) for k, v in batch.items()}, PROBED_TOKENS)
    return logits.cpu()


def check_effect(base: torch.Tensor, adapted: torch.Tensor) -> None:
    """The adapter changes what the base says, and to numbers."""
    if not torch.isfinite(adapted).all():
        raise refusal("the adapter answers with numbers that are not finite", "lower training.lr")
    if torch.equal(base, adapted):
        raise refusal("the adapter changes nothing", "raise training.lr or training.max_steps")


def check_reload(
    adapted: torch.Tensor, reloaded: torch.Tensor, dtype: torch.dtype = torch.float32
) -> None:
    """The stored adapter, loaded anew, answers as the trained one did.

    dtype: of the base's weights. Methods that take their beginning out of shorter ones than
    float32 round them; their adapter is stored over the weights as they were.
    """
    difference = _difference(adapted, reloaded)
    if difference > max(RELOAD_TOLERANCE, 8 * _rounding(dtype)):
        raise refusal(
            f"the stored adapter differs from the trained one by {difference:.1e} in its logits",
            "the method does not store all that it trains",
        )


def check_merge(
    adapted: torch.Tensor, merged: torch.Tensor, dtype: torch.dtype = torch.float32
) -> float:
    """Merged into the base, the adapter answers the same; return the relative difference.

    dtype: of the weights that it was merged into. Short ones round the sum.
    """
    difference = _difference(adapted, merged)
    if difference > max(MERGE_TOLERANCE, 16 * _rounding(dtype)):
        raise refusal(
            f"merged into the base the adapter differs by {difference:.1e} in its logits",
            "the method is not mergeable",
        )
    return difference


def check_base(before: torch.Tensor, after: torch.Tensor) -> None:
    """The base answers as it did before the adapter was trained and merged."""
    difference = _difference(before, after)
    if difference > RELOAD_TOLERANCE:
        raise refusal(
            f"the base was changed: its logits differ by {difference:.1e}",
            "the method writes into weights that it does not adapt; nothing is stored",
        )


def _rounding(dtype: torch.dtype) -> float:
    return 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    scale = max(float(one.abs().max()), 1e-9)
    difference = float((one - other).abs().max()) / scale
    return math.inf if math.isnan(difference) else difference


def adapted_layers(model: torch.nn.Module, base: Collection[torch.nn.Module]) -> dict[str, str]:
    """The adapted layer of each trainable parameter: the lowest module that is one of the base's,
    or holds one or a frozen parameter.

    base: the modules from before the method was attached. Frozen parameters alone do not tell: a
    quantised layer may hold its weight in buffers.
    """
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return {name: _layer_of(model, name, base) for name in trained}


def _layer_of(model: torch.nn.Module, parameter: str, base: Collection[torch.nn.Module]) -> str:
    path = parameter.rpartition(".")[0]
    while path:
        module = model.get_submodule(path)
        frozen = any(not p.requires_grad for p in module.parameters())
        if frozen or any(part in base for part in module.modules()):
            return path
        path = path.rpartition(".")[0]
    return path
