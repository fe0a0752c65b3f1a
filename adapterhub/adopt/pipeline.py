"""Importing what a survey found and the user accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterhub.adopt.found import Found, FoundBase, Survey
from adapterhub.bases.add import add_base
from adapterhub.errors import AdzError, usage_error
from adapterhub.imports.pipeline import import_adapter
from adapterhub.manifest import Version
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Progress, Registry


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of one of them: a version, or why not."""

    found: Found
    version: Version | None
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "directory": str(self.found.directory),
            "reference": self.version.reference if self.version else None,
            "digest": self.version.digest if self.version else None,
            "problem": self.problem,
        }


def clean(survey: Survey) -> list[Found]:
    """What is imported unless somebody says otherwise."""
    return [one for one in survey.adapters if one.level == "clean"]


def choose(survey: Survey, numbers: Sequence[int]) -> list[Found]:
    """The adapters of these numbers, counted from 1. Raises a usage error for one that is not
    there or cannot be imported."""
    chosen = []
    for number in numbers:
        if not 1 <= number <= len(survey.adapters):
            raise usage_error(f"there is no number {number}", f"1 to {len(survey.adapters)}")
        one = survey.adapters[number - 1]
        if one.level == "error":
            reason = next(fault.text for fault in one.faults if fault.level == "error")
            raise usage_error(f"number {number}, {one.name}, cannot be imported: {reason}")
        chosen.append(one)
    return chosen


def needed_bases(survey: Survey, chosen: Sequence[Found]) -> list[FoundBase]:
    """The bases that these need and the registry does not know."""
    names = {one.base.name for one in chosen}
    return [base for base in survey.bases if base.name in names]


def adopt(
    registry: Registry, survey: Survey, chosen: Sequence[Found], progress: Progress
) -> list[Adopted]:
    """Add the bases that `chosen` need, and import each. One that a gate refuses, or whose base
    cannot be added, stops no other."""
    refused: dict[str | None, str] = {}
    for base in needed_bases(survey, chosen):
        try:
            add_base(registry, base.name, str(base.directory), copy=False, progress=progress)
        except AdzError as error:
            refused[base.name] = f"its base {base.name} cannot be added: {error}"
    adopted = []
    # Each import's own lines say what the survey has said.
    quiet = Silent()
    with progress.task("importing", len(chosen)) as task:
        for one in chosen:
            problem = refused.get(one.base.name)
            done = Adopted(one, None, problem) if problem else _import(registry, one, quiet)
            adopted.append(done)
            task.advance(1, one.name)
    return adopted


def _origin(one: Found) -> dict[str, Any] | None:
    """Which checkpoint of which run it was; a whole path means nothing on another machine."""
    if one.step is None:
        return None
    return {"source": "/".join(one.directory.parts[-2:]), "step": one.step}


def _import(registry: Registry, one: Found, progress: Progress) -> Adopted:
    try:
        version = import_adapter(
            registry,
            one.directory,
            one.name,
            one.base.name or "unknown",
            progress,
            recipe=_origin(one),
        )
    except AdzError as error:
        return Adopted(one, None, str(error))
    except OSError as error:
        return Adopted(one, None, f"{error.filename or one.directory}: {error.strerror}")
    return Adopted(one, version)
