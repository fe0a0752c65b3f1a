"""The pipeline: a plan in, a committed version out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from adapterhub import protocols
from adapterhub.data import stop_token
from adapterhub.errors import usage_error
from adapterhub.manifest import Version
from adapterhub.models import compute_device, load_base, share_weights
from adapterhub.plugins import load_plugins
from adapterhub.train import gates
from adapterhub.train.batches import Collator
from adapterhub.train.directory import alone, explained, last_checkpoint, run_directory
from adapterhub.train.loss import mean_loss
from adapterhub.train.merge_gate import check_merged
from adapterhub.train.moments import measure_moments
from adapterhub.train.plan import Plan
from adapterhub.train.profile import choose_profile
from adapterhub.train.reports import reported
from adapterhub.train.result import commit_run
from adapterhub.train.row_gates import announce, check_rows
from adapterhub.train.rows import Rows, choose_pad, rows_of
from adapterhub.train.run import Run, first_batch
from adapterhub.train.stepping import calibrate, follow_steps
from adapterhub.train.targets import report_targets
from adapterhub.train.trainer import Bar
from adapterhub.train.watch import Alerts, Best, SoftEnd

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ground:
    """What runs over the same base and rows have in common.

    base: the frozen model, in which no adapter is ever attached; adapters get a copy of it that
    shares the weights. logits: the base's, on the first rows.
    """

    base: Any
    train_rows: Rows
    holdout_rows: Rows
    collate: Collator
    logits: torch.Tensor
    holdout_loss: float | None


def train(
    plan: Plan,
    registry: protocols.Registry,
    progress: protocols.Progress,
    *,
    resume: bool = False,
) -> Version:
    """Train the adapter that `plan` describes and commit it.

    With `resume` a run of the same recipe, base and data goes on from its last checkpoint.
    Raises AdzError when a gate refuses; nothing is committed then.
    """
    if plan.makes_base:
        raise usage_error(
            f"the method {plan.method.name} makes a base, not an adapter",
            "adz train --method full, or Hub().train_base",
        )

    def end(run: Run, ground: Ground) -> Version:
        return finish(run, ground, registry, progress)

    return carry_out(plan, progress, end, resume=resume)


def carry_out(
    plan: Plan, progress: protocols.Progress, end: Callable[[Run, Ground], T], *, resume: bool
) -> T:
    """Take the steps of a run, and return what `end` makes of it."""
    directory = run_directory([plan])
    with alone(directory):
        checkpoint = open_directory(directory, progress, resume=resume)
        with explained(plan, directory):
            result = end(*_trained(plan, directory, progress, checkpoint))
        shutil.rmtree(directory, ignore_errors=True)
    return result


def assist(plan: Plan, progress: protocols.Progress, *, resume: bool) -> None:
    """Take part in the steps of a run that another process opens and commits."""
    directory = run_directory([plan])
    checkpoint = last_checkpoint(directory) if resume else None
    _trained(plan, directory, progress, checkpoint)


def _trained(
    plan: Plan, directory: Path, progress: protocols.Progress, checkpoint: Path | None
) -> tuple[Run, Ground]:
    ground = prepare(plan, progress)
    run = attach(plan, ground, directory)
    progress.note(f"adapted: {report_targets(run.model, run.layers).text()}")
    load_plugins().call_event("adapterhub_before_train", run=run)
    progress.note(f"profile: {choose_profile(plan).text()}")
    _take_steps(run, progress, checkpoint)
    return run, ground


def open_directory(directory: Path, progress: protocols.Progress, *, resume: bool) -> Path | None:
    """Make the directory of a run; return the checkpoint to go on from, if there is one."""
    checkpoint = last_checkpoint(directory) if resume else None
    if resume and checkpoint is None:
        progress.note("there is no checkpoint of this recipe: training from the start")
    if checkpoint is None:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    return checkpoint


def prepare(plan: Plan, progress: protocols.Progress) -> Ground:
    """Load the base and score it; the rows pass the gates before training."""
    train_rows, holdout_rows = rows_of(plan)
    stop = stop_token(plan.tokenizer, plan.prompt_format)
    pad = choose_pad(plan.tokenizer, stop)
    check_rows(train_rows, stop, pad)
    plan.tokenizer.pad_token_id = pad
    collate = Collator(pad)
    if train_rows.skipped:
        progress.warn(
            f"{train_rows.skipped} of {len(plan.train)} rows are longer than "
            f"{plan.recipe.training.max_length} tokens and are left out"
        )
    progress.note(announce(plan.objective, train_rows[0], plan.tokenizer))
    model = _load(plan, quantized=True)
    held = None
    if len(holdout_rows) and plan.objective.likelihood:
        held = mean_loss(model, holdout_rows, collate, plan.recipe.training.batch_size)
    logits = gates.probe(model, train_rows, collate)
    return Ground(model, train_rows, holdout_rows, collate, logits, held)


def attach(plan: Plan, ground: Ground, directory: Path) -> Run:
    """A run with a fresh adapter over the shared weights of the base; a backward pass reaches
    all of it."""
    # The seed comes before the adapter: its first weights are random.
    torch.manual_seed(plan.recipe.training.seed)
    base = share_weights(ground.base)
    modules = frozenset(base.modules())
    model = method_of(plan).attach(base, plan.method_options, prepared=plan.is_quantised)
    facts = {} if ground.holdout_loss is None else {"holdout_loss_base": ground.holdout_loss}
    run = Run(
        plan, model, ground.train_rows, ground.holdout_rows, ground.collate, directory,
        compute_device(), plan.steps(len(ground.train_rows)), facts=facts,
    )  # fmt: skip
    calibrate(method_of(plan), run)
    adapted = gates.adapted_layers(model, modules)
    reached = gates.check_gradients(model, adapted, first_batch(run))
    run.layers, run.unused_parameters = reached.layers, reached.unused
    return run


def method_of(plan: Plan) -> protocols.Method:
    """The implementation of the plan's method."""
    return cast("protocols.Method", load_plugins().load_implementation(plan.method)())


def _load(plan: Plan, *, quantized: bool) -> Any:
    arguments: dict[str, Any] = {}
    quantizer: protocols.Quantizer | None = None
    if quantized and plan.quantizer:
        quantizer = load_plugins().load_implementation(plan.quantizer)()
        arguments = quantizer.load_arguments(plan.quantizer_options)
    model: Any = load_base(plan.base, arguments=arguments)
    # Methods record the base by its name, never by a path of this machine.
    model.name_or_path = plan.base.name
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if plan.stored:
        quantizer = load_plugins().load_implementation(plan.stored)()
    if quantizer is not None:
        return quantizer.prepare(model)
    return model.to(compute_device())


def _take_steps(run: Run, progress: protocols.Progress, checkpoint: Path | None) -> None:
    objective = cast(
        "protocols.Objective", load_plugins().load_implementation(run.plan.objective)()
    )
    trainer = objective.trainer(run)
    follow_steps(method_of(run.plan), run, trainer, resumed=checkpoint is not None)
    facts = drive(trainer, run, progress, checkpoint)
    run.history = list(trainer.state.log_history)
    run.facts.update(facts)


def drive(
    trainer: Any, run: Run, progress: protocols.Progress, checkpoint: Path | None
) -> dict[str, Any]:
    """Let a trainer take its steps under a progress bar; return what the manifest says of it."""
    training = run.recipe.training
    alerts, end = Alerts(progress), SoftEnd()
    best = Best(run.directory, trainer.model, training.patience)
    watching = [alerts, end, best] if training.eval_every else [alerts, end]
    begun = time.monotonic()
    bar = progress.task(f"training {run.plan.name}", run.steps)
    with bar as task, end.listening(), reported(trainer, run):
        for callback in (*watching, Bar(trainer, task)):
            trainer.add_callback(callback)
        output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # Mixed precision wraps the model for good; an adapter is loaded without.
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    end.check(trainer.state.global_step, run.steps)
    seconds = time.monotonic() - begun
    kept = best.restore() if training.keep == "best" else None
    return {
        **({} if kept is None else {"kept_step": kept}),
        **({"alerts": list(alerts.said.values())} if alerts.said else {}),
        "train_loss": output.training_loss,
        "steps": trainer.state.global_step,
        "tokens": trainer.seen_tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(trainer.seen_tokens / seconds, 1),
        "resumed": checkpoint is not None,
        **trainer.held_out(),
    }


def finish(
    run: Run, ground: Ground, registry: protocols.Registry, progress: protocols.Progress
) -> Version:
    """Score the trained adapter, pass the gates after training and commit."""
    if "holdout_loss_base" in run.facts:
        run.facts["holdout_loss"] = holdout_loss(run, run.model)
    payload = run.directory / "payload"
    _check_after(run, ground, payload)
    if run.recipe.training.input_moments:
        measure_moments(run, progress)
    load_plugins().call_event("adapterhub_after_train", run=run, result=run.facts)
    return commit_run(run, registry, payload, run.directory / "artifacts")


def holdout_loss(run: Run, model: Any) -> float:
    """Nats a held-out token."""
    return mean_loss(model, run.holdout_rows, run.collate, run.recipe.training.batch_size)


def _check_after(run: Run, ground: Ground, payload: Path) -> None:
    adapted = gates.probe(run.model, run.train_rows, run.collate)
    gates.check_effect(ground.logits, adapted)
    method = method_of(run.plan)
    shutil.rmtree(payload, ignore_errors=True)
    method.save(run.model, payload)
    fresh: Any = method.load(share_weights(ground.base), payload)
    again = gates.probe(fresh, run.train_rows, run.collate)
    gates.check_reload(adapted, again, ground.base.dtype)
    if run.plan.quantizer is not None:
        # It is served over the base itself, which its gradients never saw.
        if "holdout_loss" in run.facts:
            served = method.load(_load(run.plan, quantized=False), payload)
            run.facts["holdout_loss_served"] = holdout_loss(run, served)
    elif run.plan.method.mergeable and not run.plan.is_quantised:
        difference = check_merged(run, ground.base, method, payload, again)
        run.facts["merge_difference"] = difference
        gates.check_base(ground.logits, gates.probe(ground.base, run.train_rows, run.collate))
