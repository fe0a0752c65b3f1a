"""What is searched: every option of the recipe that the user left open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.merge.prepare import prepare
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Registry

if TYPE_CHECKING:
    import optuna

# Weights are searched as shares, each up to this factor above or below the others', and the
# scale from half the mean to one and a half times the sum.
_TILT = 3.0
_LEAST_SCALE = 0.5
_MOST_SCALE = 1.5
_DENSITY = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The recipe that was given, and the pairs of rule and space that are tried.

    What the recipe gives is held fixed. The weights of a candidate sum to 1, and its scale says
    how large the result is, so that rules that normalise are searched as well as those that sum.
    """

    recipe: MergeRecipe
    pairs: tuple[tuple[str, str], ...]

    def suggest(self, trial: optuna.trial.Trial) -> MergeRecipe:
        """The candidate that `trial` stands for."""
        given = self.recipe.model_fields_set
        values: dict[str, Any] = {}
        values["rule"], values["space"] = self._pair(trial)
        count = len(self.recipe.adapters)
        if "weights" not in given:
            names = [f"tilt_{number}" for number in range(count)]
            tilts = [trial.suggest_float(name, 1 / _TILT, _TILT, log=True) for name in names]
            values["weights"] = [tilt / sum(tilts) for tilt in tilts]
        if "scale" not in given:
            values["scale"] = trial.suggest_float(
                "scale", _LEAST_SCALE, _MOST_SCALE * count, log=True
            )
        rule = descriptor(values["rule"], self.recipe.compat)
        if "density" in rule.parameters and "density" not in given:
            values["density"] = trial.suggest_float("density", *_DENSITY)
        return self.with_values(values)

    def with_values(self, values: dict[str, Any]) -> MergeRecipe:
        """The given recipe with these values, checked again."""
        fields = self.recipe.model_dump(include=self.recipe.model_fields_set)
        return MergeRecipe.model_validate({**fields, **values})

    def starts(self) -> Iterator[dict[str, Any]]:
        """Points worth trying first: every pair's defaults, in the pairs' order."""
        for rule_name, space in self.pairs:
            rule = descriptor(rule_name, self.recipe.compat)
            point: dict[str, Any] = {f"tilt_{n}": 1.0 for n in range(len(self.recipe.adapters))}
            point |= {"pair": f"{rule_name}/{space}", "scale": 1.0}
            point["density"] = min(max(rule.default_density, _DENSITY[0]), _DENSITY[1])
            yield point

    def _pair(self, trial: optuna.trial.Trial) -> tuple[str, str]:
        if len(self.pairs) == 1:
            return self.pairs[0]
        names = [f"{rule}/{space}" for rule, space in self.pairs]
        rule, _, space = str(trial.suggest_categorical("pair", names)).partition("/")
        return rule, space


def search_space(recipe: MergeRecipe, registry: Registry) -> SearchSpace:
    """The pairs of rule and space that can merge these adapters; the recipe's own comes first.

    Raises the AdzError of the recipe itself, before any pair is left out.
    """
    own = prepare(recipe, registry)
    first = (own.choice.rule.name, own.choice.space.name)
    pairs = [first]
    for name in load_plugins().components(specs.MergeRule):
        if recipe.rule is not None and name != recipe.rule:
            continue
        for space in _spaces(name, recipe):
            if (name, space) != first and _can_merge(recipe, registry, name, space):
                pairs.append((name, space))
    return SearchSpace(recipe, tuple(pairs))


def descriptor(rule: str, peer: str | None) -> specs.MergeRule:
    """The rule's descriptor, or that of the peer's variant."""
    component = load_plugins().get(specs.MergeRule, rule)
    variant = component.as_peer(peer) if peer else component
    return variant or component


def _spaces(name: str, recipe: MergeRecipe) -> list[str]:
    rule = descriptor(name, recipe.compat)
    spaces = load_plugins().components(specs.MergeSpace)
    if recipe.space is not None:
        return [recipe.space] if recipe.space in rule.spaces else []
    # Without freedom in the rank, a space only repeats what another one finds.
    free = [name for name in rule.spaces if spaces[name].ranks.startswith("up-to")]
    if rule.kind == "elementwise" and not rule.parameters and rule.config is None:
        # A plain sum is the same in all coordinates.
        return free[:1]
    return free


def _can_merge(recipe: MergeRecipe, registry: Registry, rule: str, space: str) -> bool:
    fields = recipe.model_dump(include=recipe.model_fields_set)
    try:
        prepare(MergeRecipe.model_validate({**fields, "rule": rule, "space": space}), registry)
    except AdzError:
        return False
    return True
