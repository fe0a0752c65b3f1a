"""What a merge leaves beside its weights: the manifest, and the error of every module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapterhub import specs
from adapterhub.environment import environment
from adapterhub.manifest import Manifest, Parent
from adapterhub.merge.prepare import PreparedMerge
from adapterhub.merge.result import MergeResult
from adapterhub.plugins import load_plugins

LIBRARIES = ("numpy", "safetensors", "torch")
MODULE_ERRORS = "module_errors.json"


def manifest_of(prepared: PreparedMerge, result: MergeResult) -> Manifest:
    """The manifest of the merged version."""
    manifests = [operand.version.manifest for operand in prepared.operands if operand.version]
    return Manifest(
        name=prepared.name,
        method="lora",
        made_by="merge",
        base=prepared.base,
        quantizer=shared([m.quantizer for m in manifests]),
        objective=shared([m.objective for m in manifests]),
        prompt_format=shared([m.prompt_format for m in manifests]),
        adapter={
            "rank": result.rank,
            "alpha": result.rank,
            "modules": result.modules,
            "parameters": result.parameters,
            "dtype": "F32",
        },
        recipe=resolved_recipe(prepared),
        parents=_parents(prepared),
        metrics={
            "error_of": result.error_of,
            "relative_error": result.relative_error,
            "largest": [{"module": m, "relative_error": e} for m, e in result.largest],
        },
        environment=environment(LIBRARIES, *_components(prepared)),
    )


def resolved_recipe(prepared: PreparedMerge) -> dict[str, Any]:
    """The recipe with everything that was left open filled in, and without paths."""
    # A directory is named without its path: a manifest says nothing about this machine.
    adapters = [o.label if o.version else o.directory.resolve().name for o in prepared.operands]
    choice = prepared.choice
    recipe = {
        "adapters": adapters,
        "rule": _rule(prepared),
        "space": load_plugins().name_of(choice.space),
        "weights": list(choice.weights),
        "rank": prepared.shapes.rank,
        "seed": prepared.recipe.seed,
        "options": prepared.recipe.options,
    }
    if choice.scale != 1:
        recipe["scale"] = choice.scale
    if prepared.recipe.compat is not None:
        recipe["compat"] = prepared.recipe.compat
    if "density" in choice.options:
        recipe["density"] = choice.options["density"]
    return recipe


def write_errors(errors: Sequence[tuple[str, float]], directory: Path) -> None:
    """module_errors.json: the relative Frobenius error of every module, by name."""
    text = json.dumps(dict(errors), indent=0, sort_keys=True)
    (directory / MODULE_ERRORS).write_text(text + "\n", encoding="utf-8")


def shared(values: Sequence[Any]) -> Any:
    """The one value that all are, or None."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _parents(prepared: PreparedMerge) -> tuple[Parent, ...]:
    pairs = zip(prepared.operands, prepared.choice.weights, strict=True)
    return tuple(
        Parent(name=o.version.name, version=o.version.number, digest=o.version.digest, weight=w)
        for o, w in pairs
        if o.version
    )


def _components(prepared: PreparedMerge) -> list[specs.Component]:
    # A peer's variant is no component of its own: the rule that names it is.
    return [load_plugins().get(specs.MergeRule, _rule(prepared)), prepared.choice.space]


def _rule(prepared: PreparedMerge) -> str:
    """The rule as it was asked for, where several plugins have one of its name."""
    given = prepared.recipe.rule or ""
    return given if ":" in given else prepared.choice.rule.name
