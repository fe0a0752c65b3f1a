"""From a recipe and opened adapters to a plan: rule, space, weights, modules, rank. Or why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from adapterhub import specs
from adapterhub.config import validate
from adapterhub.errors import AdzError, usage_error
from adapterhub.merge.lora import LoraAdapter
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.plugins import load_plugins


@dataclass(frozen=True, slots=True)
class Choice:
    """The rule and the space with everything that they are given; no adapter read yet."""

    rule: specs.MergeRule
    space: specs.MergeSpace
    weights: tuple[float, ...]
    options: Mapping[str, Any]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Shapes:
    """The result's modules, (m, n) each, its rank, and the highest rank that has a meaning."""

    modules: Mapping[str, tuple[int, int]]
    rank: int
    possible: int


def choose(recipe: MergeRecipe, rule_name: str) -> Choice:
    """Check all that can be checked before an adapter is opened; usage errors."""
    plugins = load_plugins()
    rule = plugins.get(specs.MergeRule, rule_name)
    if recipe.compat is not None:
        rule = _as_peer(rule, recipe.compat)
    space_name = recipe.space or rule.spaces[0]
    space = plugins.get(specs.MergeSpace, space_name)
    if space.name not in rule.spaces and rule.name not in space.rules:
        raise usage_error(
            f"the rule {rule.name!r} does not run in the space {space_name!r}",
            "it runs in " + ", ".join(rule.spaces) + _where_peers_run(rule, space_name),
        )
    count = len(recipe.adapters)
    if rule.kind == "pairwise" and count != 2:
        raise usage_error(f"the rule {rule.name!r} takes two adapters, {count} are given")
    return Choice(rule, space, _weights(recipe, rule), _options(recipe, rule), recipe.scale)


def check_count(recipe: MergeRecipe) -> None:
    """Raise a usage error where there is nothing to combine."""
    count = len(recipe.adapters)
    if count < 2:
        raise usage_error(f"{count} adapter{'s' * (count != 1)} given", "name at least two")


def _where_peers_run(rule: specs.MergeRule, space: str) -> str:
    peers = [variant.peer for variant in rule.compat if space in variant.spaces]
    return f", with --compat {peers[0]} there" if peers else ""


def _as_peer(rule: specs.MergeRule, peer: str) -> specs.MergeRule:
    variant = rule.as_peer(peer)
    if variant is None:
        peers = ", ".join(variant.peer for variant in rule.compat)
        raise usage_error(
            f"the rule {rule.name!r} has no --compat {peer}",
            f"it has {peers}" if peers else "it has none",
        )
    return variant


def _weights(recipe: MergeRecipe, rule: specs.MergeRule) -> tuple[float, ...]:
    count = len(recipe.adapters)
    if not rule.weighted:
        ones = (1.0,) * count
        if recipe.weights not in (None, ones):
            raise usage_error(f"the rule {rule.name!r} has no weights here", "leave them away")
        return ones
    if recipe.weights is None:
        return (1 / count,) * count
    if len(recipe.weights) != count:
        raise usage_error(
            f"{len(recipe.weights)} weight{'s' * (len(recipe.weights) != 1)} for {count} adapters",
            "give one weight for each of " + ", ".join(recipe.adapters),
        )
    if not any(recipe.weights):
        raise usage_error("all weights are 0", "nothing would be left to merge")
    for adapter, weight in zip(recipe.adapters, recipe.weights, strict=True):
        if weight < 0 and not rule.negative_weights:
            raise usage_error(
                f"the weight {weight:g} of {adapter}: {rule.name!r} has no negative weights",
                "--linear subtracts",
            )
    return recipe.weights


def _options(recipe: MergeRecipe, rule: specs.MergeRule) -> dict[str, Any]:
    model = load_plugins().load_options(rule)
    if recipe.options and model is None:
        raise usage_error(f"the rule {rule.name!r} has no options of its own")
    options = validate(model, recipe.options, "options").model_dump() if model else {}
    if "density" in rule.parameters:
        options["density"] = rule.default_density if recipe.density is None else recipe.density
    elif recipe.density is not None:
        raise usage_error(f"the rule {rule.name!r} has no density", "leave it away")
    if "seed" in rule.parameters:
        options["seed"] = recipe.seed
    return cast("dict[str, Any]", options)


def shape(choice: Choice, adapters: Sequence[LoraAdapter], rank: int | str | None) -> Shapes:
    """The modules and the one rank of the result.

    The rank is the same in all modules, the largest that one of them needs: smaller ones are
    filled up with zeros, so that every loader and every server reads it.
    """
    modules = _modules(adapters)
    ranks = {
        module: [adapter.modules[module][0] for adapter in adapters if module in adapter.modules]
        for module in modules
    }
    if choice.space.ranks == "equal":
        return _equal_ranks(choice, modules, ranks, rank)
    highest = max(sum(r) for r in ranks.values())
    if choice.space.ranks == "sum":
        if rank not in (None, "sum", highest):
            raise usage_error(
                f"{choice.rule.name!r} has rank {highest}, the sum, not {rank}",
                "--linear compresses to any rank",
            )
        return Shapes(modules, highest, highest)
    possible = {
        module: min(*modules[module], *([sum(r)] if choice.space.ranks == "up-to-sum" else []))
        for module, r in ranks.items()
    }
    module, bound = max(possible.items(), key=lambda item: item[1])
    wanted = rank or choice.rule.default_rank
    if wanted == "sum":
        number = min(highest, bound)
    elif wanted == "max":
        number = min(max(max(r) for r in ranks.values()), bound)
    else:
        number = int(wanted)
    if number > bound:
        raise usage_error(
            f"rank {number} is above the possible {bound} (of {module} in "
            f"{', '.join(adapter.label for adapter in adapters)})",
            f"give at most {bound}",
        )
    return Shapes(modules, number, bound)


def _equal_ranks(
    choice: Choice,
    modules: Mapping[str, tuple[int, int]],
    ranks: Mapping[str, list[int]],
    rank: int | str | None,
) -> Shapes:
    hint = "choose another --space"
    for module, given in ranks.items():
        if len(set(given)) > 1:
            numbers = ", ".join(map(str, given))
            raise usage_error(
                f"the space {choice.space.name!r} needs equal ranks, those of {module} are "
                + numbers,
                hint,
            )
    highest = max(given[0] for given in ranks.values())
    if rank not in (None, "max", highest):
        raise usage_error(
            f"the space {choice.space.name!r} keeps the adapters' rank {highest}, not {rank}", hint
        )
    return Shapes(modules, highest, highest)


def _modules(adapters: Sequence[LoraAdapter]) -> dict[str, tuple[int, int]]:
    first = adapters[0]
    modules: dict[str, tuple[int, int]] = {}
    owner: dict[str, LoraAdapter] = {}
    for adapter in adapters:
        others = {module for other in adapters if other is not adapter for module in other.modules}
        if not others & adapter.modules.keys():
            raise AdzError(
                f"{adapter.label} shares no module with the others "
                f"(its first is {next(iter(adapter.modules))})",
                "are they of the same base?",
            )
        if bool(adapter.config.get("fan_in_fan_out")) != bool(first.config.get("fan_in_fan_out")):
            raise AdzError(f"{first.label} and {adapter.label} differ in fan_in_fan_out")
        for module, (_, m, n) in adapter.modules.items():
            if modules.setdefault(module, (m, n)) != (m, n):
                raise AdzError(
                    f"{module} is {m} x {n} in {adapter.label} and "
                    f"{modules[module][0]} x {modules[module][1]} in {owner[module].label}",
                    "adapters of different bases cannot be merged",
                )
            _check_kind(module, adapter, owner.setdefault(module, adapter))
    return dict(sorted(modules.items()))


def _check_kind(module: str, adapter: LoraAdapter, other: LoraAdapter) -> None:
    pair = (adapter, other) if module in adapter.embeddings else (other, adapter)
    if (module in adapter.embeddings) != (module in other.embeddings):
        raise AdzError(
            f"{module} is an embedding in {pair[0].label} and a linear layer in {pair[1].label}",
            "adapters of different bases cannot be merged",
        )
