"""Recipes of other trainers, read as ours. Nothing of them is dropped in silence: every key is
mapped, told to have no effect here with the reason, or listed as unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterhub.config import merge_into
from adapterhub.errors import usage_error
from adapterhub.train.foreign import axolotl, llama_factory, nemo_automodel, trl
from adapterhub.train.foreign.project import Context, Project, nested

PROJECTS: tuple[Project, ...] = (
    axolotl.PROJECT,
    llama_factory.PROJECT,
    nemo_automodel.PROJECT,
    trl.PROJECT,
)


@dataclass(frozen=True, slots=True)
class Translated:
    """The options of a `TrainRecipe`, and what is to be said of the rest of a foreign recipe."""

    project: str
    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def recognise(values: Mapping[str, Any]) -> Project | None:
    """Whose recipe this is; None for ours."""
    return next((project for project in PROJECTS if project.matches(values)), None)


def translate(
    project: Project, values: Mapping[str, Any], folder: Path, bases: Mapping[str, str]
) -> Translated:
    """Read `values` as `project`'s recipe that lies in `folder`.

    bases: the sources of the known bases, by name. Usage errors name a key whose value has no
    counterpart here; keys that no table has are in `unknown`.
    """
    # A key without a value is a default there as here.
    given = {key: value for key, value in project.flatten(values).items() if value is not None}
    context = Context(project.name, folder, bases)
    result: dict[str, Any] = {}
    unknown = []
    for key, value in given.items():
        if key in project.moved:
            merge_into(result, nested(project.moved[key], value))
        elif key in project.read:
            merge_into(result, project.read[key](value, given, context))
        elif (reason := project.unused_reason(key)) is not None:
            context.notes.append(f"{key} is not used: {reason}")
        else:
            unknown.append(key)
    _check_schedule(result, project)
    return Translated(project.name, result, context.notes, unknown)


def _check_schedule(result: Mapping[str, Any], project: Project) -> None:
    training = result.get("training", {})
    if training.get("schedule") == "constant_with_warmup":
        training["schedule"] = "constant"
    if training.get("schedule") == "constant" and "warmup" not in training:
        training["warmup"] = 0.0
    known = ("linear", "cosine", "constant")
    if training.get("schedule", "linear") not in known:
        raise usage_error(
            f"the schedule {training['schedule']} of this {project.name} recipe is not here",
            "known: " + ", ".join(known) + "; -o training.schedule=... sets one",
        )
