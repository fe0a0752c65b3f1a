"""The same model, computed faster while it is trained: see tree.py and fused.py for how.

Nothing here is taken on trust: a layer is replaced only where it has the shape that is known,
and the loss of a batch must come out as the model itself gives it. Where it does not, the
model trains as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from adapterhub import protocols
from adapterhub.train.batches import Batch
from adapterhub.train.fused import Layer, gated_mlp, low_rank_linear, rms_norm
from adapterhub.train.loss import completion_loss, evaluating
from adapterhub.train.memory import dense_weight, keep_freed_memory
from adapterhub.train.tree import ATTENTION

TOLERANCE = 1e-4
"""Largest relative difference of a batch's loss, of what float32 rounds. Shorter numbers may round
by half of their last place."""


@dataclass(slots=True)
class Ranges:
    """Which tokens of a forward pass belong to which adapter, None for one without any; without
    bounds all belong to the first."""

    bounds: list[tuple[int, int] | None] | None = None


@dataclass(frozen=True, slots=True)
class _Linear:
    """A frozen product, and the low-rank pair that each model adds to it, if it does. held: the
    weight, and what it was cast to."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    pairs: tuple[protocols.LowRank | None, ...]
    held: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)

    def active(self) -> bool:
        """Whether the pairs are added now."""
        return all(pair.active() for pair in self.pairs if pair is not None)

    def dtype(self, device: torch.device) -> torch.dtype:
        """In which the product is computed now."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.weight.dtype

    def layer(self, tokens: int, ranges: Ranges) -> Layer:
        """With each pair over its own tokens."""
        dtype = self.dtype(self.weight.device)
        if dtype not in self.held:
            # Frozen: autocast would cast it anew in every pass.
            self.held[dtype] = self.weight.to(dtype)
        bounds = ranges.bounds or [(0, tokens)]
        pairs = zip(bounds, self.pairs, strict=False)
        own = [(place, pair) for place, pair in pairs if place and pair]
        return Layer(
            self.held[dtype],
            None if self.bias is None else self.bias.to(dtype),
            [(*place, pair.scale) for place, pair in own],
            tuple(f.weight.to(dtype) for _, pair in own for f in (pair.down, pair.up)),
        )


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
    linears: dict[torch.nn.Module, _Linear] = {}
    gated: list[torch.nn.Module] = []
    for name, module in models[0].named_modules():
        layers = [module, *(modules[name] for modules in others if name in modules)]
        linear = _linear(layers, known, len(models))
        if linear is not None:
            linears[module] = linear
            if any(linear.pairs):
                changes.replace(module, _low_rank_forward(module, linear, ranges))
        elif _is_rms_norm(module):
            changes.replace(module, _norm_forward(module))
        elif _is_gated(module):
            gated.append(module)
    for module in gated:
        parts = [linears.get(part) for part in _parts(module)]
        if None not in parts:
            changes.replace(module, _gated_forward(module, cast("list[_Linear]", parts), ranges))
    changes.attention = inner.config._attn_implementation
    inner.set_attn_implementation(ATTENTION)


def _linear(
    layers: Sequence[Any], method: protocols.LowRankMethod | None, models: int
) -> _Linear | None:
    """What a layer of the first of `models` and the same layer of the others compute, where each
    is a frozen product, with a low-rank pair or as it is."""
    if len(layers) < models:
        return None
    pairs = tuple(method.low_rank(layer) if method else None for layer in layers)
    weight = None
    if all(pair or _is_frozen(layer) for pair, layer in zip(pairs, layers, strict=True)):
        base = pairs[0].base if pairs[0] else layers[0]
        weight = dense_weight(base)
    if weight is not None:
        return _Linear(weight, base.bias, pairs)
    if models > 1 and any(pairs):
        # Left to itself the layer would apply the first adapter to the tokens of all.
        raise NotImplementedError(type(layers[0]).__name__)
    return None


def _is_frozen(layer: Any) -> bool:
    linear = type(layer) is torch.nn.Linear
    return linear and not any(parameter.requires_grad for parameter in layer.parameters())


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
    # A layer in 4 bits says in what it multiplies; so may others, in other words.
    computed = {getattr(module, "compute_dtype", None) for module in model.modules()}
    types |= {dtype for dtype in computed if isinstance(dtype, torch.dtype)}
    return max(TOLERANCE, *(torch.finfo(dtype).eps / 2 for dtype in types))


def _low_rank_forward(module: Any, linear: _Linear, ranges: Ranges) -> Callable[..., torch.Tensor]:
    plain = module.forward

    def forward(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if arguments or options or not linear.active():
            result: torch.Tensor = plain(x, *arguments, **options)
            return result
        flat = x.reshape(-1, x.shape[-1]).to(linear.dtype(x.device))
        layer = linear.layer(len(flat), ranges)
        # The function computes its gradients itself, in what it was given: nothing may be cast.
        with torch.autocast(x.device.type, enabled=False):
            result = low_rank_linear(flat, layer.weight, layer.bias, layer.ranges, *layer.factors)
        return _as_given(result, x)

    return forward


def _as_given(result: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Laid out as x is, and in its numbers, or in those of autocast within it."""
    if not torch.is_autocast_enabled(x.device.type):
        result = result.to(x.dtype)
    return result.view(*x.shape[:-1], -1)


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
    names = ("gate_proj", "up_proj", "down_proj", "act_fn")
    return all(hasattr(module, name) for name in names) and type(module.act_fn).__name__ in (
        "SiLU",
        "SiLUActivation",
    )


def _parts(module: Any) -> tuple[torch.nn.Module, ...]:
    return module.gate_proj, module.up_proj, module.down_proj


def _gated_forward(
    module: Any, parts: Sequence[_Linear], ranges: Ranges
) -> Callable[[torch.Tensor], torch.Tensor]:
    plain = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        (dtype, *others) = {part.dtype(x.device) for part in parts}
        if others or not all(part.active() for part in parts):
            result: torch.Tensor = plain(x)
            return result
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        layers = tuple(part.layer(len(flat), ranges) for part in parts)
        with torch.autocast(x.device.type, enabled=False):
            result = gated_mlp(flat, layers, *(f for layer in layers for f in layer.factors))
        return _as_given(result, x)

    return forward
