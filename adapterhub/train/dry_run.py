"""What a run would do, without the base's weights: shapes come from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import yaml

from adapterhub import protocols
from adapterhub.data import stop_token
from adapterhub.errors import AdzError
from adapterhub.plugins import load_plugins
from adapterhub.train import gates
from adapterhub.train.pipeline import rows_of
from adapterhub.train.plan import Plan
from adapterhub.train.profile import choose_profile
from adapterhub.train.rows import IGNORED, choose_pad
from adapterhub.train.targets import report_targets


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


def preview_run(plan: Plan) -> DryRun:
    """Everything that `adz train --dry-run` prints; the gates that need no weights run too."""
    train_rows, holdout_rows = rows_of(plan)
    stop = stop_token(plan.tokenizer, plan.prompt_format)
    gates.check_rows(train_rows, stop, choose_pad(plan.tokenizer, stop))
    profile = choose_profile(plan)
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
            "adapter": _adapter(plan),
            "profile": {**profile.values(), "text": profile.text()},
            "preview": gates.announce(plan.objective, train_rows[0], plan.tokenizer),
        }
    )


def _adapter(plan: Plan) -> dict[str, Any]:
    """The number of trainable parameters, and the adapted layers by the last part of the name."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(plan.base.path, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise AdzError(f"the base {plan.base.name} cannot be described: {error}") from error
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    modules = frozenset(model.modules())
    method = cast("protocols.Method", load_plugins().load_implementation(plan.method)())
    with torch.device("meta"):
        model = cast(
            "Any", method.attach(model, plan.method_options, prepared=plan.quantizer is not None)
        )
    report = report_targets(model, set(gates.adapted_layers(model, modules).values()))
    return {
        "parameters": report.parameters,
        "total": plan.base.parameters + (0 if plan.makes_base else report.parameters),
        "targets": report.adapted,
        "frozen": report.frozen,
    }
