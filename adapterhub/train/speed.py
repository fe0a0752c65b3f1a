"""The same model, computed faster while it is trained: see tree.py and fused.py for how.

Nothing here is taken on trust: a layer is replaced only where it has the shape that is known,
and the loss of a batch must come out as the model itself gives it. Where it does not, the
model trains as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from adapterhub import protocols
from adapterhub.train.fused import low_rank_linear, rms_norm, swiglu
from adapterhub.train.loss import completion_loss, evaluating
from adapterhub.train.memory import dense_weight, keep_freed_memory
from adapterhub.train.rows import Batch
from adapterhub.train.tree import ATTENTION

TOLERANCE = 1e-4
"""Largest relative difference of a batch's loss, of what float32 rounds. Shorter numbers may round
by half of their last place."""


@dataclass(slots=True)
class Ranges:
    """Which tokens of a forward pass belong to which adapter; None: all to the first."""

    bounds: list[tuple[int, int]] | None = None


@dataclass(slots=True)
class _Changes:
    """What was replaced, to be put back."""

    modules: list[torch.nn.Module] = field(default_factory=list)
    attention: str | None = None

    def replace(self, module: torch.nn.Module, forward: Callable[..., Any]) -> None:
        module.forward = forward
        self.modules.append(module)

    def undo(self, model: PreTrainedModel) -> None:
        for module in self.modules:
            del module.forward
        self.modules.clear()
        if self.attention is not None:
            model.set_attn_implementation(self.attention)
            self.attention = None


@contextmanager
def quickened(
    models: Sequence[torch.nn.Module],
    batch: Batch,
    method: protocols.Method,
    ranges: Ranges | None = None,
) -> Iterator[bool]:
    """Within the block the first of `models`, which `method` adapted, computes faster; yields
    whether it does.

    The others are the same base with other adapters: theirs apply to the tokens that `ranges`
    gives them, in the first model's forward pass.
    """
    keep_freed_memory()
    model = models[0]
    inner = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    if inner is None:
        yield False
        return
    changes = _Changes()
    with evaluating(model), torch.no_grad():
        expected, tokens = completion_loss(model, batch)
    try:
        with suppress(NotImplementedError):
            _replace(models, inner, changes, method, ranges or Ranges())
        if changes.attention is None or not _agrees(model, batch, float(expected / tokens)):
            changes.undo(inner)
        yield changes.attention is not None
    finally:
        changes.undo(inner)


def _replace(
    models: Sequence[torch.nn.Module],
    inner: PreTrainedModel,
    changes: _Changes,
    method: protocols.Method,
    ranges: Ranges,
) -> None:
    """Raises NotImplementedError where several adapters cannot share a layer of the base."""
    known = method if isinstance(method, protocols.LowRankMethod) else None
    others = [dict(model.named_modules()) for model in models[1:]]
    for name, module in models[0].named_modules():
        layers = [module, *(modules[name] for modules in others if name in modules)]
        parts = [known.low_rank(layer) if known else None for layer in layers]
        pairs = [pair for pair in parts if pair is not None]
        if len(pairs) == len(models):
            weight = dense_weight(pairs[0].base)
            if weight is not None:
                changes.replace(module, _low_rank_forward(module, pairs, weight, ranges))
            elif len(models) > 1:
                # Left to itself the layer would apply the first adapter to the tokens of all.
                raise NotImplementedError(name)
        elif _is_rms_norm(module):
            changes.replace(module, _norm_forward(module))
        elif _is_gated(module):
            changes.replace(module, _gated_forward(module))
    changes.attention = inner.config._attn_implementation
    inner.set_attn_implementation(ATTENTION)


def _agrees(model: torch.nn.Module, batch: Batch, expected: float) -> bool:
    prompts = getattr(model, "active_peft_config", None)
    if getattr(prompts, "is_prompt_learning", False):
        return False
    try:
        with evaluating(model), torch.no_grad():
            loss, tokens = completion_loss(model, batch)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        # An architecture whose attention is not the one that can be exchanged.
        return False
    return abs(float(loss / tokens) - expected) <= _tolerance(model) * max(abs(expected), 1.0)


def _tolerance(model: torch.nn.Module) -> float:
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max(TOLERANCE, *(torch.finfo(dtype).eps / 2 for dtype in types))


def _low_rank_forward(
    module: Any, pairs: Sequence[protocols.LowRank], weight: torch.Tensor, ranges: Ranges
) -> Callable[..., torch.Tensor]:
    plain, bias, active = module.forward, pairs[0].base.bias, pairs[0].active
    held = {weight.dtype: weight}

    def forward(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if arguments or options or not active():
            result: torch.Tensor = plain(x, *arguments, **options)
            return result
        device = x.device.type
        casts = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if casts else weight.dtype
        if dtype not in held:
            # Frozen: autocast would cast it anew in every pass.
            held[dtype] = weight.to(dtype)
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        bounds = ranges.bounds or [(0, len(flat))]
        scaled = [(b, e, pair.scale) for (b, e), pair in zip(bounds, pairs, strict=False)]
        parts = pairs[: len(bounds)]
        factors = [f.weight.to(dtype) for pair in parts for f in (pair.down, pair.up)]
        shift = None if bias is None else bias.to(dtype)
        # The function computes its gradients itself, in what it was given: nothing may be cast.
        with torch.autocast(device, enabled=False):
            result = low_rank_linear(flat, held[dtype], shift, scaled, *factors)
        return (result if casts else result.to(x.dtype)).view(*x.shape[:-1], -1)

    return forward


def _is_rms_norm(module: Any) -> bool:
    """Whether it computes what `RmsNorm` does: some multiply by 1 + w, some lack w."""
    weight, eps = getattr(module, "weight", None), _eps(module)
    if not type(module).__name__.endswith("RMSNorm") or weight is None or eps is None:
        return False
    if weight.requires_grad or weight.dtype != torch.float32:
        return False
    sample = torch.linspace(-2, 3, 2 * len(weight), device=weight.device).view(2, -1)
    with torch.no_grad():
        mine, theirs = rms_norm(sample, weight, eps), module(sample)
    return torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def _eps(module: Any) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def _norm_forward(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    plain, weight, eps = module.forward, module.weight, _eps(module)

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = rms_norm(x, weight, eps) if x.dtype == torch.float32 else plain(x)
        return result

    return forward


def _is_gated(module: Any) -> bool:
    parts = ("gate_proj", "up_proj", "down_proj", "act_fn")
    return all(hasattr(module, part) for part in parts) and type(module.act_fn).__name__ in (
        "SiLU",
        "SiLUActivation",
    )


def _gated_forward(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        product = swiglu(module.gate_proj(x), module.up_proj(x))
        result: torch.Tensor = module.down_proj(product)
        return result

    return forward
