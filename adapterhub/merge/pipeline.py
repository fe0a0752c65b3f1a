"""The merge as a whole: find, check, plan, merge, and commit or write a directory."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from adapterhub import specs
from adapterhub.errors import usage_error
from adapterhub.manifest import BaseLink, Manifest, Parent
from adapterhub.merge.engine import merge_modules, relative_error
from adapterhub.merge.lora import LoraAdapter
from adapterhub.merge.operands import (
    Operand,
    asserted_base,
    check_shapes,
    find_operands,
    result_base,
)
from adapterhub.merge.output import adapter_writer, staged, write_config
from adapterhub.merge.plan import Choice, Shapes, choose, shape
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.merge.result import MergeResult
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import check_name
from adapterhub.staging import home_staging, staging_folder


def merge(
    recipe: MergeRecipe, registry: Registry, progress: Progress, *, dry_run: bool = False
) -> MergeResult:
    """Merge adapters into a new version of the registry, or into `recipe.out`.

    `dry_run` reads the adapters' configurations and shapes only and writes nothing. Every
    user's mistake is an AdzError, and leaves nothing behind.
    """
    plan = _plan(recipe, registry)
    if not plan.base.digests:
        progress.note("base not checked: a directory does not say it, --base NAME does")
    if dry_run:
        return plan.result
    if recipe.out is not None:
        with staged(recipe.out) as directory:
            result = _run(plan, directory, progress)
        return replace(result, directory=recipe.out)
    with staging_folder(home_staging()) as folder:
        result = _run(plan, folder, progress)
        manifest = _manifest(plan, result)
        return replace(result, version=registry.commit(manifest, folder))


def default_name(adapters: Sequence[str], rule: str) -> str:
    """`a-b-ties`: the adapters' own names, without team, version or path, and the rule."""
    words = [Path(text).name if "@" not in text else text for text in adapters]
    words = [re.sub(r"[^a-z0-9._-]+", "-", w.split("/")[-1].lower()).strip("-.") for w in words]
    return re.sub(r"\.\.+", ".", "-".join([*words, rule]))[:64]


@dataclass(frozen=True)
class _Plan:
    recipe: MergeRecipe
    name: str
    operands: list[Operand]
    adapters: list[LoraAdapter]
    base: BaseLink
    choice: Choice
    shapes: Shapes

    @cached_property
    def result(self) -> MergeResult:
        parameters = sum(self.shapes.rank * (m + n) for m, n in self.shapes.modules.values())
        return MergeResult(
            rule=self.choice.rule.name,
            space=self.choice.space.name,
            adapters=tuple(operand.label for operand in self.operands),
            weights=self.choice.weights,
            options=dict(self.choice.options),
            rank=self.shapes.rank,
            possible=self.shapes.possible,
            modules=len(self.shapes.modules),
            parameters=parameters,
            base_checked=self.base.digests is not None,
        )


def _plan(recipe: MergeRecipe, registry: Registry) -> _Plan:
    choice = choose(recipe)
    if recipe.out is not None and recipe.name is not None:
        raise usage_error("both --name and --out are given", "--out writes no version")
    default = default_name(recipe.adapters, choice.rule.name)
    name = check_name(default if recipe.name is None else recipe.name)
    if recipe.out is None and name in {record.name for record in registry.bases()}:
        raise usage_error(f"{name!r} is the name of a base", "choose another with --name")
    operands = find_operands(recipe, registry)
    record = asserted_base(recipe, registry)
    base = result_base(operands, record, needed=recipe.out is None)
    adapters = [LoraAdapter(operand.label, operand.directory) for operand in operands]
    if record:
        for operand, adapter in zip(operands, adapters, strict=True):
            if operand.version is None:
                check_shapes(adapter, record)
    shapes = shape(choice, adapters, recipe.rank)
    return _Plan(recipe, name, operands, adapters, base, choice, shapes)


def _run(plan: _Plan, directory: Path, progress: Progress) -> MergeResult:
    with adapter_writer(directory, plan.shapes.modules, plan.shapes.rank) as writer:
        errors = merge_modules(
            plan.choice,
            plan.shapes,
            plan.adapters,
            writer,
            seed=plan.recipe.seed,
            workers=plan.recipe.workers,
            progress=progress,
        )
    write_config(directory, plan.adapters, plan.shapes.rank)
    largest = sorted(errors, key=lambda e: (-e.relative, e.module))[:5]
    return replace(
        plan.result,
        relative_error=relative_error(errors),
        largest=tuple((e.module, e.relative) for e in largest),
    )


def _manifest(plan: _Plan, result: MergeResult) -> Manifest:
    manifests = [operand.version.manifest for operand in plan.operands if operand.version]
    return Manifest(
        name=plan.name,
        method="lora",
        made_by="merge",
        base=plan.base,
        quantizer=_shared([m.quantizer for m in manifests]),
        objective=_shared([m.objective for m in manifests]),
        prompt_format=_shared([m.prompt_format for m in manifests]),
        adapter={
            "rank": result.rank,
            "alpha": result.rank,
            "modules": result.modules,
            "parameters": result.parameters,
            "dtype": "F32",
        },
        recipe=_resolved_recipe(plan),
        parents=_parents(plan),
        metrics={
            "relative_error": result.relative_error,
            "largest": [{"module": m, "relative_error": e} for m, e in result.largest],
        },
        environment=_environment(plan),
    )


def _resolved_recipe(plan: _Plan) -> dict[str, Any]:
    # A directory is named without its path: a manifest says nothing about this machine.
    adapters = [o.label if o.version else o.directory.resolve().name for o in plan.operands]
    recipe = {
        "adapters": adapters,
        "rule": plan.choice.rule.name,
        "space": plan.choice.space.name,
        "weights": list(plan.choice.weights),
        "rank": plan.shapes.rank,
        "seed": plan.recipe.seed,
        "options": plan.recipe.options,
    }
    if plan.recipe.compat is not None:
        recipe["compat"] = plan.recipe.compat
    if "density" in plan.choice.options:
        recipe["density"] = plan.choice.options["density"]
    return recipe


def _parents(plan: _Plan) -> tuple[Parent, ...]:
    pairs = zip(plan.operands, plan.choice.weights, strict=True)
    return tuple(
        Parent(name=o.version.name, version=o.version.number, digest=o.version.digest, weight=w)
        for o, w in pairs
        if o.version
    )


def _environment(plan: _Plan) -> dict[str, str]:
    libraries = {name: metadata.version(name) for name in ("numpy", "safetensors", "torch")}
    plugins = load_plugins()
    # A peer's variant is no component of its own: the rule that names it is.
    rule = plugins.get(specs.MergeRule, plan.recipe.rule)
    return {"python": platform.python_version(), **libraries, **plugins.versions_of(rule, plan.choice.space)}


def _shared(values: Sequence[Any]) -> Any:
    return values[0] if values and all(value == values[0] for value in values) else None
