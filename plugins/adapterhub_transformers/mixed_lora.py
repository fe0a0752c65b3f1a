"""Plain LoRA of several adapters in one batch: two matrix products a layer, whoever asks.

The factors of all adapters stand side by side in each layer, an adapter in its own columns.
A product with all of them and a mask serves a few tokens of many adapters; many tokens are
grouped by adapter, so that none is multiplied by the factors of another. Rows of the base have
no columns, and nothing is added to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Factors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By the name of a linear layer: A (rank, in) and B (out, rank), the scale already in B."""

Run = tuple["Columns | None", int]
"""So many neighbouring tokens of an adapter, or of the base."""

# Up to so many products of a token with a column, one call for all adapters is the fastest.
_ALL_AT_ONCE = 32 * 1024


@dataclass(frozen=True, slots=True)
class Columns:
    """Where an adapter's factors stand: from `begin` to before `end`."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Group:
    columns: slice
    rows: slice | torch.Tensor
    others: torch.Tensor | None = None
    """(tokens, columns) bool: columns that are not the token's own; None where all are."""


@dataclass(frozen=True, slots=True)
class _Plan:
    tokens: int
    groups: tuple[_Group, ...]


@dataclass(slots=True, eq=False)
class _Site:
    """The factors at one linear layer, and the hook that adds their products to its output."""

    store: MixedLora
    shape: tuple[int, int]
    is_head: bool
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        plan = self.store.head_plan if self.is_head else self.store.plan
        if plan is None or self.a is None or self.b is None:
            return
        x = inputs[0].reshape(-1, self.shape[0])
        if len(x) != plan.tokens:
            raise RuntimeError(f"{len(x)} tokens in a layer, {plan.tokens} in the batch")
        y = output.view(-1, self.shape[1])
        for group in plan.groups:
            part = x[group.rows].to(self.a.dtype)
            low = part @ self.a[group.columns].T
            if group.others is not None:
                low.masked_fill_(group.others, 0.0)
            if isinstance(group.rows, slice) and y.dtype == low.dtype:
                y[group.rows].addmm_(low, self.b[group.columns])
            else:
                y[group.rows] = (y[group.rows] + low @ self.b[group.columns]).to(y.dtype)

    def put(self, columns: Columns, factors: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        """Write an adapter's factors, zeros where it has none here or a smaller rank."""
        if self.a is None or self.b is None:
            if factors is None:
                return
            device = factors[0].device
            self.a = torch.zeros(self.store.width, self.shape[0], device=device)
            self.b = torch.zeros(self.store.width, self.shape[1], device=device)
        self.a[columns.begin : columns.end] = 0
        self.b[columns.begin : columns.end] = 0
        if factors is not None:
            end = columns.begin + factors[0].shape[0]
            self.a[columns.begin : end] = factors[0]
            self.b[columns.begin : end] = factors[1].T

    def widen(self) -> None:
        """Make room for `store.width` columns."""
        for name in ("a", "b"):
            old = getattr(self, name)
            if old is not None:
                new = old.new_zeros(self.store.width, old.shape[1])
                new[: len(old)] = old
                setattr(self, name, new)


@dataclass(slots=True, eq=False)
class MixedLora:
    """The adapters over one model. `plan` and `head_plan` hold for the next call of the model:
    whose its tokens are, and whose the tokens that get logits."""

    plan: _Plan | None = None
    head_plan: _Plan | None = None
    width: int = 0
    _sites: dict[str, _Site] = field(default_factory=dict)
    _used: list[Columns] = field(default_factory=list)

    @classmethod
    def over(cls, model: nn.Module, names: Iterable[str]) -> MixedLora:
        """Hook the linear layers `names` of `model`; they see each token of a batch once."""
        store = cls()
        head = getattr(model, "get_output_embeddings", lambda: None)()
        for name in names:
            layer: Any = model.get_submodule(name)
            shape = (layer.in_features, layer.out_features)
            store._sites[name] = _Site(store, shape, layer is head)
            layer.register_forward_hook(store._sites[name])
        return store

    def fits(self, factors: Factors) -> bool:
        """Whether each layer of an adapter is one of those that were hooked."""
        return self._sites.keys() >= factors.keys()

    def add(self, factors: Factors) -> Columns:
        """Keep an adapter's factors; where they stand."""
        columns = self._place(max((a.shape[0] for a, _ in factors.values()), default=0))
        for name, site in self._sites.items():
            site.put(columns, factors.get(name))
        return columns

    def remove(self, columns: Columns) -> None:
        """Let others have an adapter's place."""
        self._used.remove(columns)

    def use(self, tokens: Sequence[Run], sampled: Sequence[Run]) -> None:
        """Whose the tokens of the next call are, and whose those that get logits."""
        self.plan = self._plan_of(tokens)
        self.head_plan = self._plan_of(sampled)

    def _place(self, rank: int) -> Columns:
        begin = 0
        for used in sorted(self._used, key=lambda columns: columns.begin):
            if used.begin - begin >= rank:
                break
            begin = used.end
        columns = Columns(begin, begin + rank)
        self._used.append(columns)
        if columns.end > self.width:
            self.width = max(columns.end, 2 * self.width)
            for site in self._sites.values():
                site.widen()
        return columns

    def _plan_of(self, runs: Sequence[Run]) -> _Plan | None:
        used = {columns for columns, _ in runs if columns is not None}
        if not used:
            return None
        tokens = sum(count for _, count in runs)
        begin = min(columns.begin for columns in used)
        end = max(columns.end for columns in used)
        if len(used) == 1 and all(columns is not None for columns, _ in runs):
            return _Plan(tokens, (_Group(slice(begin, end), slice(0, tokens)),))
        if tokens * (end - begin) <= _ALL_AT_ONCE:
            others = torch.ones(tokens, end - begin, dtype=torch.bool)
            for columns, rows in _places(runs):
                others[rows, columns.begin - begin : columns.end - begin] = False
            group = _Group(slice(begin, end), slice(0, tokens), others.to(self._device()))
            return _Plan(tokens, (group,))
        return _Plan(tokens, tuple(self._groups(runs)))

    def _groups(self, runs: Sequence[Run]) -> Iterable[_Group]:
        together: dict[Columns, list[slice]] = {}
        for columns, place in _places(runs):
            together.setdefault(columns, []).append(place)
        for columns, parts in together.items():
            rows: slice | torch.Tensor = parts[0]
            if len(parts) > 1:
                places = [torch.arange(part.start, part.stop) for part in parts]
                rows = torch.cat(places).to(self._device())
            yield _Group(slice(columns.begin, columns.end), rows)

    def _device(self) -> torch.device:
        found = (site.a.device for site in self._sites.values() if site.a is not None)
        return next(found, torch.device("cpu"))


def _places(runs: Sequence[Run]) -> Iterable[tuple[Columns, slice]]:
    begin = 0
    for columns, count in runs:
        if columns is not None:
            yield columns, slice(begin, begin + count)
        begin += count


def plain_factors(model: Any) -> Factors | None:
    """The factors of an adapter that is plain LoRA and nothing else, from PEFT's model of it."""
    from peft import PeftModel
    from peft.tuners.lora import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if not isinstance(model, PeftModel) or not _is_plain(model.active_peft_config):
        return None
    found = {}
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, AuxiliaryTrainingWrapper):
            return None
        if isinstance(layer, BaseTunerLayer):
            if type(layer) is not Linear or not _is_plain_layer(layer):
                return None
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            found[name] = (a.detach().float(), b.detach().float() * layer.scaling["default"])
    return found


def _is_plain(config: Any) -> bool:
    return (
        config.peft_type == "LORA"
        and config.bias == "none"
        and not config.layer_replication
        and not getattr(config, "alora_invocation_tokens", None)
    )


def _is_plain_layer(layer: Any) -> bool:
    return (
        type(layer.base_layer) is nn.Linear
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and not layer.lora_bias["default"]
        and not layer.fan_in_fan_out
        and not layer.merged
    )
