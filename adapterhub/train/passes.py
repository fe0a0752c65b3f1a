"""Which runs of a sweep are trained side by side, and which have losses that may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterhub import protocols
from adapterhub.manifest import canonical_json
from adapterhub.models import compute_device
from adapterhub.plugins import load_plugins
from adapterhub.train.plan import Plan
from adapterhub.train.recipe import TrainingOptions

# What may differ between runs of one pass.
_OWN = ("lr", "weight_decay")
_BATCHED_QUANTIZERS = (None, "nf4")


@dataclass(frozen=True, slots=True)
class Pass:
    """Runs that are trained together, by their place in the sweep. why: the reason why they are
    not with those of the first pass; empty for that one, where it has several runs."""

    runs: tuple[int, ...]
    why: str


def share_passes(plans: Sequence[Plan]) -> list[Pass]:
    """Every run in the first pass that it can share, in the order of the runs."""
    groups: list[list[int]] = []
    reasons: list[str] = []
    for number, plan in enumerate(plans):
        why = ""
        for group in groups:
            found = why_apart([*(plans[other] for other in group), plan])
            if not found:
                group.append(number)
                break
            why = why or found
        else:
            groups.append([number])
            reasons.append(why)
    if len(groups[0]) == 1:
        reasons[0] = reasons[1] if len(groups) > 1 else why_apart(plans)
    return [Pass(tuple(group), why) for group, why in zip(groups, reasons, strict=True)]


def why_apart(plans: Sequence[Plan]) -> str:
    """Why these runs cannot be trained side by side; empty when they can."""
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
    # A GPU unpacks 4 bits in every pass, inside a layer that knows one adapter.
    batched = _BATCHED_QUANTIZERS if compute_device().type == "cpu" else (None,)
    if len(names) > 1 or not names.issubset(batched):
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
    if first.recipe.training.report_to:
        return "each reports its own metrics"
    return "it is scored while it trains" if first.recipe.training.eval_every else ""


def comparable(plans: Sequence[Plan]) -> list[tuple[int, ...]]:
    """The runs whose losses say which is better, by their place in the sweep: groups of several
    that are scored on the same rows, by the same objective, over the same base."""
    groups: dict[bytes, list[int]] = {}
    for number, plan in enumerate(plans):
        # What generates is rewarded for other answers in each run.
        if not plan.objective.generates:
            groups.setdefault(_scored_by(plan), []).append(number)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _scored_by(plan: Plan) -> bytes:
    training = plan.recipe.training
    parts: dict[str, Any] = {
        "base": plan.base.digests.model_dump(mode="json"),
        "data": [data.sha256 for data in plan.files],
        "options": plan.recipe.data.model_dump(mode="json"),
        "objective": plan.recipe.objective.model_dump(mode="json"),
        "rows": [training.max_length, training.eval_rows],
    }
    if not plan.holdout:
        # The mean loss while training depends on how long that was.
        parts["steps"] = [training.epochs, training.max_steps, training.batch_size]
        parts["quantizer"] = plan.recipe.quantizer and plan.recipe.quantizer.name
    return canonical_json(parts)
