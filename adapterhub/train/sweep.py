"""Several recipes over one base: trained in one pass where they can be, else in turn.

The runs of a sweep are versions of their names like any others; the one with the lowest loss is
tagged.
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
from adapterhub.train.pipeline import attach, drive, finish, open_directory, prepare, train
from adapterhub.train.plan import Plan
from adapterhub.train.recipe import TrainingOptions
from adapterhub.train.run import Run

WINNER = "best"
"""The alias of the winner."""

# What may differ between runs of one forward pass.
_OWN = ("lr", "weight_decay")
_BATCHED_QUANTIZERS = (None, "nf4")


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep: what sets it apart, and its version or why there is none."""

    label: str
    version: Version | None
    error: AdzError | None

    @property
    def loss(self) -> float:
        """Nats a held-out token, or a training token where nothing is held out."""
        if self.version is None:
            return float("inf")
        metrics = self.version.manifest.metrics
        return float(metrics.get("holdout_loss", metrics["train_loss"]))


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep has made. joint: in one forward pass. why: why not."""

    members: list[Member]
    joint: bool
    why: str
    winner: Member | None


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


def why_apart(plans: Sequence[Plan]) -> str:
    """Why these runs cannot share a forward pass; empty when they can."""
    first = plans[0]
    if any(plan.base.digests != first.base.digests for plan in plans):
        return "they have several bases"
    if any([d.sha256 for d in p.files] != [d.sha256 for d in first.files] for p in plans):
        return "they learn from several data sets"
    if any(plan.method.name not in ("lora", "rslora") for plan in plans):
        return "only plain LoRA is computed side by side"
    if any(getattr(plan.method_options, "dropout", 0) for plan in plans):
        return "dropout draws numbers for each run"
    names = {plan.quantizer.name if plan.quantizer else None for plan in plans}
    if len(names) > 1 or not names.issubset(_BATCHED_QUANTIZERS):
        return "the base is quantised in a way that computes each run by itself"
    objective = load_plugins().load_implementation(first.objective)()
    same = all(plan.recipe.objective == first.recipe.objective for plan in plans)
    if not same or not isinstance(objective, protocols.JointObjective):
        return "the objective trains one adapter at a time"
    for name in TrainingOptions.model_fields:
        values = {repr(getattr(plan.recipe.training, name)) for plan in plans}
        if name not in _OWN and len(values) > 1:
            return f"training.{name} differs"
    if any(plan.recipe.data != first.recipe.data for plan in plans):
        return "their options of data differ"
    return "it is scored while it trains" if first.recipe.training.eval_every else ""


def sweep(
    plans: Sequence[tuple[str, Plan]],
    registry: protocols.Registry,
    progress: protocols.Progress,
    *,
    resume: bool = False,
) -> Sweep:
    """Train all of `plans`, each with its label, and tag the winner.

    A run that a gate refuses leaves the others as they are. Raises AdzError when none is left.
    """
    why = why_apart([plan for _, plan in plans])
    if not why:
        members = _jointly(plans, registry, progress, resume=resume)
    else:
        progress.note(f"one after the other: {why}")
        members = [_alone(label, plan, registry, progress, resume) for label, plan in plans]
    made = [member for member in members if member.version is not None]
    if not made:
        raise members[0].error or AdzError("no run of the sweep came to its end")
    winner = min(made, key=lambda member: member.loss)
    if winner.version is not None:
        registry.tag(winner.version.reference, WINNER)
    return Sweep(members, not why, why, winner)


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
