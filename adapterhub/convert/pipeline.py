"""The conversion as a whole: find, check, factor, write, measure, commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adapterhub.convert.factors import ModuleFactors
from adapterhub.convert.models import Models, component_of, load_models
from adapterhub.convert.output import write_lora
from adapterhub.convert.plan import ConvertPlan, is_plain, plan_by_factors, plan_by_updates
from adapterhub.convert.recipe import ConvertRecipe
from adapterhub.convert.result import ConvertResult
from adapterhub.convert.source import (
    Source,
    base_changing_init,
    check_convertible,
    find_initial,
    find_source,
)
from adapterhub.environment import environment
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import Manifest, Parent
from adapterhub.merge.engine import ModuleError, one_thread_each, over_modules, relative_error
from adapterhub.merge.output import staged
from adapterhub.moments import INPUT_MOMENTS
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import DERIVED, check_name, check_new_name
from adapterhub.staging import home_staging, staging_folder

_NOTHING: Mapping[str, Any] = {}
_LIBRARIES = ("peft", "safetensors", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class _Task:
    recipe: ConvertRecipe
    name: str
    source: Source
    initial: Source | None
    most_rank: int | None = None


def convert(
    recipe: ConvertRecipe,
    registry: Registry,
    progress: Progress,
    *,
    measure: bool = True,
    metrics: Mapping[str, Any] = _NOTHING,
    most_rank: int | None = None,
    most_error: float | None = None,
) -> ConvertResult:
    """Convert an adapter into a plain LoRA: a new version of the registry, or `recipe.out`.

    measure: compare the logits too, for which the base is loaded. metrics: more for the manifest
    of a version. most_rank: what a recipe without rank is given, where that is possible. Every
    user's mistake is an AdzError, and leaves nothing behind; so is a loss above `most_error`.
    """
    task = replace(_find(recipe, registry), most_rank=most_rank)
    if recipe.out is not None:
        with staged(recipe.out) as directory:
            result, _ = _run(task, directory, progress, measure=measure)
        return replace(result, directory=recipe.out)
    check_new_name(task.name, metrics.get(DERIVED))
    with staging_folder(home_staging()) as folder:
        payload, artifacts = folder / "payload", folder / "artifacts"
        payload.mkdir()
        result, plan = _run(task, payload, progress, measure=measure)
        _check_error(result, most_error)
        artifacts.mkdir()
        _keep_moments(task.source, registry, artifacts)
        manifest = _manifest(task, result, plan)
        manifest = manifest.model_copy(update={"metrics": {**manifest.metrics, **metrics}})
        version = registry.commit(manifest, payload, artifacts)
        return replace(result, version=version)


def default_name(source: Source) -> str:
    """`NAME-lora`, of the version's name or the directory's."""
    if source.version:
        return f"{source.version.name[:59]}-lora"
    word = re.sub(r"[^a-z0-9._-]+", "-", source.directory.resolve().name.lower()).strip("-._")
    return re.sub(r"\.\.+", ".", f"{word[:59]}-lora")


def _check_error(result: ConvertResult, most: float | None) -> None:
    if most is not None and result.relative_error > most:
        raise AdzError(
            f"{result.source} ({result.method}) as a LoRA of rank {result.rank} loses "
            f"{result.relative_error:.1%} of its update, at most {most:.1%} may be lost",
            f"adz convert {result.source} --rank N, up to {result.possible}, loses less; adz serve "
            "--convert-error allows more",
        )


def _keep_moments(source: Source, registry: Registry, artifacts: Path) -> None:
    # The modules read what they read before, so that what was recorded of it stays true.
    if source.version and source.version.manifest.artifacts:
        registry.artifacts(source.version, artifacts)
        for path in artifacts.iterdir():
            if path.name != INPUT_MOMENTS:
                path.unlink()


def _find(recipe: ConvertRecipe, registry: Registry) -> _Task:
    if recipe.out is not None and recipe.name is not None:
        raise usage_error("both --name and --out are given", "--out writes no version")
    source = find_source(recipe.adapter, recipe.base, registry)
    if recipe.out is None and source.record is None:
        raise usage_error(
            f"the base of {source.label} is not known", "give --base NAME, or --out DIR"
        )
    name = check_name(default_name(source) if recipe.name is None else recipe.name)
    if recipe.out is None and name in {record.name for record in registry.bases()}:
        raise usage_error(f"{name!r} is the name of a base", "choose another with --name")
    check_convertible(source, has_initial=recipe.initial is not None)
    component_of(source)
    initial = find_initial(recipe.initial, registry) if recipe.initial is not None else None
    return _Task(recipe, name, source, initial)


def _run(
    task: _Task, directory: Path, progress: Progress, *, measure: bool
) -> tuple[ConvertResult, ConvertPlan]:
    models = _models(task, progress) if measure or not _by_factors(task) else None
    plan = _plan(task, models)
    modules = _factor(plan, task.recipe.workers, progress)
    rank = write_lora(directory, task.source, modules, plan.kinds)
    result = _result(task, modules, rank, plan.possible)
    # PEFT cannot open an adapter whose beginning it cannot compute again.
    if models is not None and measure:
        progress.note("comparing the logits")
        result = replace(result, logits=models.check(task.source, directory, task.recipe.data))
    return result, plan


def _models(task: _Task, progress: Progress) -> Models | None:
    record = task.source.record
    if record is None:
        progress.note("logits not compared: the base is not known, --base NAME says it")
        return None
    if task.initial is not None:
        return None
    progress.note(f"loading {record.name}")
    return load_models(task.source, record)


def _by_factors(task: _Task) -> bool:
    recomputed = base_changing_init(task.source.config) and task.initial is None
    return is_plain(task.source) and not recomputed


def _plan(task: _Task, models: Models | None) -> ConvertPlan:
    if _by_factors(task):
        return plan_by_factors(task.recipe, task.source, task.initial, task.most_rank)
    if models is None:
        raise usage_error(
            f"{task.source.label} ({task.source.method}) cannot be converted without its base",
            "give --base NAME",
        )
    return plan_by_updates(task.recipe, task.source, models, task.most_rank)


def _factor(plan: ConvertPlan, workers: int | None, progress: Progress) -> dict[str, ModuleFactors]:
    def factor(module: str) -> ModuleFactors:
        factors = plan.jobs[module]()
        if not (torch.isfinite(factors.a).all() and torch.isfinite(factors.b).all()):
            raise AdzError(f"{module} holds NaN or infinity", "train it again")
        return factors

    description = f"converting {len(plan.shapes)} modules"
    with one_thread_each():
        made = over_modules(factor, plan.shapes, workers, progress, description)
    return dict(zip(sorted(plan.shapes), made, strict=True))


def _result(
    task: _Task, modules: Mapping[str, ModuleFactors], rank: int, possible: int
) -> ConvertResult:
    errors = [ModuleError(name, f.error, f.norm) for name, f in modules.items()]
    largest = sorted(errors, key=lambda e: (-e.relative, e.module))[:5]
    if not any(error.norm for error in errors):
        raise AdzError(f"{task.source.label} changes nothing", "was it saved untrained?")
    return ConvertResult(
        source=task.source.label,
        method=task.source.method,
        rank=rank,
        possible=possible,
        modules=len(modules),
        parameters=rank * sum(f.a.shape[1] + f.b.shape[0] for f in modules.values()),
        relative_error=relative_error(errors),
        largest=tuple((e.module, e.relative) for e in largest),
    )


def _manifest(task: _Task, result: ConvertResult, plan: ConvertPlan) -> Manifest:
    source = task.source.version.manifest if task.source.version else None
    parents = [(task.source, "source"), *([(task.initial, "initial")] if task.initial else [])]
    return Manifest(
        name=task.name,
        method="lora",
        made_by="convert",
        base=task.source.link,
        quantizer=source.quantizer if source else None,
        objective=source.objective if source else None,
        prompt_format=source.prompt_format if source else None,
        adapter={
            "rank": result.rank,
            "alpha": result.rank,
            "modules": result.modules,
            "parameters": result.parameters,
            "dtype": "F32",
        },
        recipe=_resolved_recipe(task, plan),
        parents=tuple(
            Parent(
                name=p.version.name, version=p.version.number, digest=p.version.digest, role=role
            )
            for p, role in parents
            if p.version
        ),
        metrics={
            "relative_error": result.relative_error,
            "largest": [{"module": m, "relative_error": e} for m, e in result.largest],
            "logits": result.logits.as_dict() if result.logits else None,
        },
        environment=environment(_LIBRARIES, component_of(task.source)),
    )


def _resolved_recipe(task: _Task, plan: ConvertPlan) -> dict[str, Any]:
    # A directory is named without its path: a manifest says nothing about this machine.
    def label(source: Source) -> str:
        return source.label if source.version else source.directory.resolve().name

    recipe: dict[str, Any] = {
        "adapter": label(task.source),
        "to": task.recipe.to,
        "rank": plan.rank.most if plan.rank.energy is None else task.recipe.rank,
    }
    if task.initial:
        recipe["initial"] = label(task.initial)
    return recipe
