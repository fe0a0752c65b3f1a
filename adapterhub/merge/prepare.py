"""From a recipe to a merge that is checked and ready to run: nothing is written here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from adapterhub.bases.identity import why_not_version
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import BaseLink
from adapterhub.merge.lora import LoraAdapter
from adapterhub.merge.moments import missing_moments, open_moments
from adapterhub.merge.operands import (
    Operand,
    asserted_base,
    check_copies,
    check_shapes,
    find_operands,
    result_base,
)
from adapterhub.merge.plan import Choice, Shapes, check_count, choose
from adapterhub.merge.ranks import find_shapes
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.merge.result import MergeResult
from adapterhub.protocols import Registry
from adapterhub.reference import check_name


@dataclass(frozen=True)
class PreparedMerge:
    """A merge with its operands open, before a factor is read.

    name: the result's in the registry. base: of all operands; its digests are None where
    directories do not say it.
    """

    recipe: MergeRecipe
    name: str
    operands: list[Operand]
    adapters: list[LoraAdapter]
    base: BaseLink
    choice: Choice
    shapes: Shapes

    @cached_property
    def result(self) -> MergeResult:
        """What is known of the result before the merge."""
        parameters = sum(self.shapes.rank * (m + n) for m, n in self.shapes.modules.values())
        return MergeResult(
            rule=self.choice.rule.name,
            space=self.choice.space.name,
            adapters=tuple(operand.label for operand in self.operands),
            weights=self.choice.weights,
            scale=self.choice.scale,
            options=dict(self.choice.options),
            rank=self.shapes.rank,
            possible=self.shapes.possible,
            modules=len(self.shapes.modules),
            parameters=parameters,
            base_checked=self.base.digests is not None,
            error_of="outputs" if self.choice.space.moments else "weights",
        )


def prepare(recipe: MergeRecipe, registry: Registry) -> PreparedMerge:
    """Find and check all that a merge needs. Every user's mistake is an AdzError."""
    if recipe.out is not None and recipe.name is not None:
        raise usage_error("both --name and --out are given", "--out writes no version")
    check_count(recipe)
    choice = choose(recipe, recipe.rule) if recipe.rule is not None else None
    operands = find_operands(recipe, registry)
    _check_distinct(operands)
    record = asserted_base(recipe, registry)
    base = result_base(operands, record, needed=recipe.out is None)
    _admit(operands, registry)
    adapters = [LoraAdapter(operand.label, operand.directory) for operand in operands]
    for operand, adapter in zip(operands, adapters, strict=True):
        if record and operand.version is None:
            check_shapes(adapter, record)
        if adapter.copies:
            same = (known for known in registry.bases() if known.digests == base.digests)
            check_copies(adapter, next(same, None))
    if choice is None:
        choice = choose(recipe, _default_rule(recipe, operands, adapters, registry))
    elif choice.space.moments and (missing := _open_moments(operands, adapters, registry)):
        raise missing
    name = _name(recipe, choice, registry)
    shapes = find_shapes(recipe, choice, adapters)
    return PreparedMerge(recipe, name, operands, adapters, base, choice, shapes)


def _admit(operands: Sequence[Operand], registry: Registry) -> None:
    """The registry's gates, where the base of the operands is here: a merge needs none."""
    versions = [operand.version for operand in operands if operand.version]
    bases = registry.bases() if versions else []
    for version in versions:
        mine = [base for base in bases if why_not_version(version, base) is None]
        if mine:
            registry.admit(version, mine[0])


def _default_rule(
    recipe: MergeRecipe,
    operands: Sequence[Operand],
    adapters: Sequence[LoraAdapter],
    registry: Registry,
) -> str:
    """regmean where every adapter has its input moments, else linear."""
    # A weight, a density or a space is something that is said of the sum of the updates.
    said = (recipe.weights, recipe.density, recipe.space, recipe.compat)
    if recipe.options or any(value is not None for value in said):
        return "linear"
    if _open_moments(operands, adapters, registry):
        for adapter in adapters:
            adapter.moments = None
        return "linear"
    return "regmean"


def _open_moments(
    operands: Sequence[Operand], adapters: Sequence[LoraAdapter], registry: Registry
) -> AdzError | None:
    """Open every adapter's moments; what is missing, if something is."""
    for operand, adapter in zip(operands, adapters, strict=True):
        adapter.moments = open_moments(operand, registry)
        missing = missing_moments(operand, adapter.modules, adapter.moments)
        if missing:
            return missing
    return None


def _name(recipe: MergeRecipe, choice: Choice, registry: Registry) -> str:
    default = default_name(recipe.adapters, choice.rule.name)
    name = check_name(default if recipe.name is None else recipe.name)
    if recipe.out is None and name in {record.name for record in registry.bases()}:
        raise usage_error(f"{name!r} is the name of a base", "choose another with --name")
    return name


def _check_distinct(operands: Sequence[Operand]) -> None:
    seen = set()
    for operand in operands:
        found = operand.version.digest if operand.version else str(operand.directory.resolve())
        if found in seen:
            raise usage_error(f"{operand.label} is given twice", "give it once, with its weight")
        seen.add(found)


def default_name(adapters: Sequence[str], rule: str) -> str:
    """`a-b-ties`: the adapters' own names, without team, version or path, and the rule."""
    words = [Path(text).name if "@" not in text else text for text in adapters]
    words = [re.sub(r"[^a-z0-9._-]+", "-", w.split("/")[-1].lower()).strip("-.") for w in words]
    return re.sub(r"\.\.+", ".", "-".join([*words, rule]))[:64]
