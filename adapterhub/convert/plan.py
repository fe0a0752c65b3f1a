"""From a source to one job a module: by its factors where it is a LoRA, else by its updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from adapterhub.bases.adapter_files import WEIGHTS
from adapterhub.bases.headers import read_header
from adapterhub.convert.factors import (
    ModuleFactors,
    Rank,
    factors_of_product,
    factors_of_update,
)
from adapterhub.convert.models import Models
from adapterhub.convert.recipe import ConvertRecipe
from adapterhub.convert.source import Source
from adapterhub.errors import AdzError, usage_error
from adapterhub.merge.lora import LoraAdapter
from adapterhub.merge.operands import check_shapes
from adapterhub.protocols import WeightUpdate

Job = Callable[[], ModuleFactors]

DEFAULT_RANK = 16
# What makes a LoRA more than its two factors, so that its base is needed.
_MORE_THAN_FACTORS = (
    "kasa_config", "modules_to_save", "monteclora_config", "use_bdlora", "use_dora",
    "use_qalora", "velora_config",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConvertPlan:
    """What is done for each module, its update's shape and kind, and the rank that was decided
    on. possible: the highest rank that has a meaning."""

    jobs: Mapping[str, Job]
    shapes: Mapping[str, tuple[int, int]]
    kinds: Mapping[str, str]
    rank: Rank
    possible: int


def is_plain(source: Source) -> bool:
    """Whether the adapter is two factors a linear layer, which need no base."""
    config = source.config
    if config.get("peft_type") != "LORA" or any(config.get(o) for o in _MORE_THAN_FACTORS):
        return False
    ends = (".lora_A.weight", ".lora_B.weight")
    return all(name.endswith(ends) for name in read_header(source.directory / WEIGHTS))


def plan_by_factors(
    recipe: ConvertRecipe, source: Source, initial: Source | None, most_rank: int | None = None
) -> ConvertPlan:
    """Exact at the adapter's own rank; where `initial` is subtracted, at the sum of both."""
    adapter = LoraAdapter(source.label, source.directory, base_changing=initial is not None)
    if source.record is not None and source.version is None:
        check_shapes(adapter, source.record)
    operands = [(adapter, 1.0)]
    if initial is not None:
        operands.append((_opened_initial(initial, adapter), -1.0))
    shapes = {module: (m, n) for module, (_, m, n) in adapter.modules.items()}
    exact = max(sum(o.modules[m][0] for o, _ in operands) for m in shapes)
    rank = _rank(recipe, shapes, min(exact, most_rank or exact))

    def job(module: str) -> ModuleFactors:
        factors = [(o.factors(module, shapes[module]), sign) for o, sign in operands]
        a = torch.cat([f.a.double() for f, _ in factors])
        b = torch.cat([f.b.double() * (f.scale * sign) for f, sign in factors], dim=1)
        return factors_of_product(a, b, rank)

    kind = "transposed" if source.config.get("fan_in_fan_out") else "linear"
    jobs = {module: partial(job, module) for module in shapes}
    return ConvertPlan(jobs, shapes, dict.fromkeys(shapes, kind), rank, _possible(shapes))


def plan_by_updates(
    recipe: ConvertRecipe, source: Source, models: Models, most_rank: int | None = None
) -> ConvertPlan:
    """The best of a rank, from what the adapter adds to each weight of the base. Where the
    recipe has none it is `most_rank`, else the adapter's own."""
    updates = models.updates()
    if not updates:
        raise AdzError(
            f"{source.label} ({source.method}) changes no weight of the base",
            "serve the adapter as it is",
        )
    shapes = {module: update.shape for module, update in updates.items()}
    own = source.config.get("r") if source.config.get("peft_type") == "LORA" else None
    wanted = most_rank or int(own or DEFAULT_RANK)
    rank = _rank(recipe, shapes, min(wanted, _possible(shapes)))

    def job(update: WeightUpdate) -> ModuleFactors:
        return factors_of_update(update.compute(), rank)

    jobs = {module: partial(job, update) for module, update in updates.items()}
    kinds = {module: update.kind for module, update in updates.items()}
    return ConvertPlan(jobs, shapes, kinds, rank, _possible(shapes))


def _opened_initial(initial: Source, adapter: LoraAdapter) -> LoraAdapter:
    opened = LoraAdapter(initial.label, initial.directory, base_changing=True)
    theirs, ours = ({k: v[1:] for k, v in a.modules.items()} for a in (opened, adapter))
    if theirs != ours:
        raise AdzError(
            f"{initial.label} and {adapter.label} adapt different modules",
            "--initial is the same adapter before its training",
        )
    return opened


def _possible(shapes: Mapping[str, tuple[int, int]]) -> int:
    return max(min(shape) for shape in shapes.values())


def _rank(recipe: ConvertRecipe, shapes: Mapping[str, tuple[int, int]], default: int) -> Rank:
    possible = _possible(shapes)
    if recipe.energy is not None:
        return Rank(possible, recipe.energy)
    wanted = default if recipe.rank is None else int(recipe.rank)
    if recipe.rank is not None and wanted > possible:
        raise usage_error(
            f"rank {wanted} is above the possible {possible} of {recipe.adapter}",
            f"give at most {possible}",
        )
    return Rank(wanted)
