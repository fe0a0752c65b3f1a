"""What a run would do, without the base's weights: shapes come from its configuration.

What is asked of the base stands in its outline, which was made when it was added: neither torch nor
transformers is imported where the method tells its targets by a forecast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import yaml

from adapterhub import protocols
from adapterhub.bases.outline import Outline, outline_of
from adapterhub.data import stop_token
from adapterhub.manifest import BaseRecord
from adapterhub.models import empty_base, load_tokenizer
from adapterhub.plugins import load_plugins
from adapterhub.train.plan import Plan, make_plan
from adapterhub.train.profile import choose_profile
from adapterhub.train.recipe import TrainRecipe
from adapterhub.train.row_gates import announce, check_rows
from adapterhub.train.rows import IGNORED, choose_pad, rows_of
from adapterhub.train.targets import TargetReport, foretell_targets, report_targets


@dataclass(frozen=True, slots=True)
class DryRun:
    """The resolved recipe, and what follows from it."""

    values: dict[str, Any]

    def text(self) -> str:
        """For people."""
        recipe = yaml.safe_dump(self.values["recipe"], sort_keys=False, allow_unicode=True)
        data, adapter = self.values["data"], self.values["adapter"]
        frozen = ", ".join(f"{n} x{count}" for n, count in adapter["frozen"].items()) or "nothing"
        targets = ", ".join(f"{name} x{count}" for name, count in adapter["targets"].items())
        left_out = f", {data['skipped']} too long and left out" if data["skipped"] else ""
        return "\n".join(
            (
                recipe.rstrip(),
                "",
                f"data      {data['rows']} rows ({data['format']}){left_out}, "
                f"{data['holdout_rows']} held out",
                f"tokens    {data['tokens']:,} an epoch, {data['scored_tokens']:,} of them scored",
                f"steps     {data['steps']}",
                f"lr        {self.values['recipe']['training']['lr']:g} ({self.values['lr']})",
                f"adapter   {adapter['parameters']:,} trainable of {adapter['total']:,} parameters",
                f"targets   {targets}",
                f"frozen    {frozen}",
                f"profile   {self.values['profile']['text']}",
                self.values["preview"],
            )
        )


def preview_run(recipe: TrainRecipe, registry: protocols.Registry) -> DryRun:
    """Everything that `adz train --dry-run` prints; the gates that need no weights run too."""
    outlines: dict[str, Outline] = {}

    def tokenizer_of(base: BaseRecord) -> Any:
        outline = outlines[base.name] = outline_of(base)
        return outline.tokenizer or load_tokenizer(base)

    plan = make_plan(recipe, registry, tokenizer_of)
    return describe_run(plan, outlines[plan.base.name])


def describe_run(plan: Plan, outline: Outline) -> DryRun:
    """The same of a plan. outline: of its base."""
    train_rows, holdout_rows = rows_of(plan)
    stop = stop_token(plan.tokenizer, plan.prompt_format)
    check_rows(train_rows, stop, choose_pad(plan.tokenizer, stop))
    profile = choose_profile(plan, outline.threads)
    scored = sum(sum(label != IGNORED for label in row.labels) for row in train_rows)
    return DryRun(
        {
            "recipe": plan.resolved,
            "lr": plan.lr_source,
            "base": {"name": plan.base.name, "parameters": plan.base.parameters},
            "data": {
                **plan.files[0].record(),
                "rows": len(train_rows),
                "skipped": train_rows.skipped,
                "holdout_rows": len(holdout_rows),
                "tokens": train_rows.tokens,
                "scored_tokens": scored,
                "steps": plan.steps(len(train_rows)),
            },
            "adapter": _adapter(plan, outline),
            "profile": {**profile.values(), "text": profile.text()},
            "preview": announce(plan.objective, train_rows[0], plan.tokenizer),
        }
    )


def _adapter(plan: Plan, outline: Outline) -> dict[str, Any]:
    """The number of trainable parameters, and the adapted layers by the last part of the name."""
    report = _foretold(plan, outline) or _attached(plan)
    return {
        "parameters": report.parameters,
        "total": plan.base.parameters + (0 if plan.makes_base else report.parameters),
        "targets": report.adapted,
        "frozen": report.frozen,
    }


def _foretold(plan: Plan, outline: Outline) -> TargetReport | None:
    forecast = load_plugins().load_forecast(plan.method)
    adapted = forecast(outline.layout, plan.method_options) if forecast else None
    return foretell_targets(outline.layout, adapted) if adapted else None


def _attached(plan: Plan) -> TargetReport:
    """What the method does to the base's modules without weights."""
    import torch

    from adapterhub.train.gates import adapted_layers

    model = empty_base(plan.base)
    modules = frozenset(model.modules())
    method = cast("protocols.Method", load_plugins().load_implementation(plan.method)())
    with torch.device("meta"):
        adapted = cast(
            "Any", method.attach(model, plan.method_options, prepared=plan.quantizer is not None)
        )
    return report_targets(adapted, set(adapted_layers(adapted, modules).values()))
