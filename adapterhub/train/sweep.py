"""Several recipes in one process: trained side by side where they can be, else in turn.

The runs of a sweep are versions of their names like any others; of those that may be compared
the one with the lowest loss is tagged.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub import protocols
from adapterhub.config import merge_into, parse_overrides
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import Version
from adapterhub.plugins import load_plugins
from adapterhub.train.directory import alone, explained, run_directory
from adapterhub.train.passes import Pass, comparable, share_passes
from adapterhub.train.pipeline import attach, drive, finish, open_directory, prepare, train
from adapterhub.train.plan import Plan
from adapterhub.train.recipe import TrainingOptions
from adapterhub.train.run import Run

WINNER = "best"
"""The alias of the winner."""

_HELD_OUT = ("holdout_objective", "holdout_loss_served", "holdout_loss")


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep: what sets it apart, and its version or why there is none."""

    label: str
    version: Version | None
    error: AdzError | None

    @property
    def held_out(self) -> float | None:
        """What is minimised, on the held-out rows: the objective, or nats a token over the base as
        it is served. None where nothing is held out."""
        metrics = self.version.manifest.metrics if self.version else {}
        found = (metrics[name] for name in _HELD_OUT if name in metrics)
        return next(found, None)

    @property
    def loss(self) -> float:
        """What the runs are compared by: on held-out rows, or in training where there are none."""
        if self.version is None:
            return float("inf")
        held = self.held_out
        return float(self.version.manifest.metrics["train_loss"] if held is None else held)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep has made: a member for each plan, in their order. winners: the best of each
    group of runs that may be compared."""

    members: list[Member]
    passes: list[Pass]
    winners: list[Member]


def combinations(values: dict[str, Any], axes: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """Every combination of `key=a,b` axes laid over a recipe, with a label each.

    A key without a dot is an option of training where there is one of that name, else of the
    method.
    """
    choices: list[list[tuple[str, str]]] = []
    for axis in axes:
        key, separator, text = axis.partition("=")
        if not separator or not key or not text:
            raise usage_error(f"{axis!r} is not key=value,value", "for example --sweep r=8,16")
        full = key
        if "." not in key and key not in ("method", "quantizer", "name"):
            full = f"{'training' if key in TrainingOptions.model_fields else 'method'}.{key}"
        choices.append([(f"{key}={value}", f"{full}={value}") for value in text.split(",")])
    result = []
    for combination in itertools.product(*choices):
        recipe = deepcopy(values)
        merge_into(recipe, parse_overrides(override for _, override in combination))
        result.append((" ".join(label for label, _ in combination), recipe))
    return result


def sweep(
    plans: Sequence[tuple[str, Plan]],
    registry: protocols.Registry,
    progress: protocols.Progress,
    *,
    resume: bool = False,
) -> Sweep:
    """Train all of `plans`, each with its label, and tag the winners.

    A run that a gate refuses leaves the others as they are. Raises AdzError when none is left.
    """
    if any(plan.makes_base for _, plan in plans):
        raise usage_error("a sweep compares adapters, and full makes bases", "train them in turn")
    bare = [plan for _, plan in plans]
    passes = share_passes(bare)
    made: dict[int, Member] = {}
    for part in passes:
        if part.why:
            names = ", ".join(plans[number][0] for number in part.runs)
            progress.note(f"{names} apart: {part.why}")
        members = _one_pass([plans[number] for number in part.runs], registry, progress, resume)
        made.update(zip(part.runs, members, strict=True))
    members = [made[number] for number in range(len(plans))]
    if all(member.version is None for member in members):
        raise members[0].error or AdzError("no run of the sweep came to its end")
    winners = []
    for group in comparable(bare):
        best = min((members[number] for number in group), key=lambda member: member.loss)
        if best.version is not None:
            registry.tag(best.version.reference, WINNER)
            winners.append(best)
    return Sweep(members, passes, winners)


def _one_pass(
    plans: Sequence[tuple[str, Plan]],
    registry: protocols.Registry,
    progress: protocols.Progress,
    resume: bool,
) -> list[Member]:
    if len(plans) > 1:
        return _jointly(plans, registry, progress, resume=resume)
    ((label, plan),) = plans
    return [_alone(label, plan, registry, progress, resume)]


def _alone(
    label: str, plan: Plan, registry: protocols.Registry, progress: protocols.Progress, resume: bool
) -> Member:
    try:
        version = train(plan, registry, progress, resume=resume)
    except AdzError as error:
        progress.warn(f"{label}: {error}")
        return Member(label, None, error)
    return Member(label, version, None)


def _jointly(
    plans: Sequence[tuple[str, Plan]],
    registry: protocols.Registry,
    progress: protocols.Progress,
    *,
    resume: bool,
) -> list[Member]:
    first = plans[0][1]
    directory = run_directory([plan for _, plan in plans])
    with alone(directory):
        checkpoint = open_directory(directory, progress, resume=resume)
        with explained(first, directory):
            ground = prepare(first, progress)
            runs = [
                attach(plan, ground, directory / f"member-{number}")
                for number, (_, plan) in enumerate(plans)
            ]
            for run in runs:
                load_plugins().call_event("adapterhub_before_train", run=run)
            _take_steps(runs, directory, progress, checkpoint)
            members = []
            for (label, _), run in zip(plans, runs, strict=True):
                run.directory.mkdir(parents=True, exist_ok=True)
                try:
                    version = finish(run, ground, registry, progress)
                    members.append(Member(label, version, None))
                except AdzError as error:
                    progress.warn(f"{label}: {error}")
                    members.append(Member(label, None, error))
        shutil.rmtree(directory, ignore_errors=True)
    return members


def _take_steps(
    runs: Sequence[Run], directory: Path, progress: protocols.Progress, checkpoint: Path | None
) -> None:
    """One trainer, whose log is taken apart into one for each run."""
    objective: Any = load_plugins().load_implementation(runs[0].plan.objective)()
    places = [run.directory for run in runs]
    runs[0].directory = directory
    trainer = objective.joint_trainer(runs)
    facts = drive(trainer, runs[0], progress, checkpoint)
    for number, (run, place) in enumerate(zip(runs, places, strict=True)):
        run.directory = place
        run.history = [
            {
                "step": entry["step"],
                "epoch": entry["epoch"],
                "loss": entry["losses"][number],
                "grad_norm": entry["grad_norms"][number],
                "learning_rate": entry["learning_rates"][number],
            }
            for entry in trainer.state.log_history
            if "losses" in entry
        ]
        losses = [entry["loss"] for entry in run.history]
        run.facts.update(facts, train_loss=sum(losses) / max(len(losses), 1), together=len(runs))
