"""The pipeline: a plan in, a committed version out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from adapterhub import protocols
from adapterhub.data import stop_token
from adapterhub.manifest import Version
from adapterhub.models import compute_device, load_base
from adapterhub.plugins import load_plugins
from adapterhub.train import gates
from adapterhub.train.directory import alone, explained, last_checkpoint, run_directory
from adapterhub.train.loss import mean_loss
from adapterhub.train.moments import measure_moments
from adapterhub.train.plan import Plan
from adapterhub.train.result import commit_run
from adapterhub.train.rows import Collator, Rows, choose_pad, make_rows
from adapterhub.train.run import Run, first_batch
from adapterhub.train.trainer import Bar


def train(
    plan: Plan,
    registry: protocols.Registry,
    progress: protocols.Progress,
    *,
    resume: bool = False,
) -> Version:
    """Train what `plan` says and commit it.

    With `resume` a run of the same recipe, base and data goes on from its last checkpoint.
    Raises AdzError when a gate refuses; nothing is committed then.
    """
    directory = run_directory(plan)
    with alone(directory):
        version = _train_in(directory, plan, registry, progress, resume=resume)
        shutil.rmtree(directory, ignore_errors=True)
    return version


def _train_in(
    directory: Path,
    plan: Plan,
    registry: protocols.Registry,
    progress: protocols.Progress,
    *,
    resume: bool,
) -> Version:
    checkpoint = last_checkpoint(directory) if resume else None
    if resume and checkpoint is None:
        progress.note("there is no checkpoint of this recipe: training from the start")
    if checkpoint is None:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    with explained(plan, directory):
        run, base_logits = prepare(plan, directory, progress)
        load_plugins().call_event("adapterhub_before_train", run=run)
        _take_steps(run, progress, checkpoint)
        _score_after(run)
        payload = directory / "payload"
        _check_after(run, base_logits, payload, progress)
        if plan.recipe.training.input_moments:
            measure_moments(run, progress)
        load_plugins().call_event("adapterhub_after_train", run=run, result=run.facts)
        return commit_run(run, registry, payload, directory / "artifacts")


def rows_of(plan: Plan) -> tuple[Rows, Rows]:
    """Training and held-out rows as tokens; of the latter at most `training.eval_rows`."""
    training = plan.recipe.training
    longest = training.max_length
    arguments = (plan.tokenizer, plan.prompt_format, longest)
    train_rows = make_rows(plan.train, *arguments)
    return train_rows, make_rows(plan.holdout[: training.eval_rows], *arguments)


def prepare(plan: Plan, directory: Path, progress: protocols.Progress) -> tuple[Run, torch.Tensor]:
    """Load the base, score it, attach the adapter and pass the gates before training.

    Returns the run and the base's logits on the first rows.
    """
    train_rows, holdout_rows = rows_of(plan)
    stop = stop_token(plan.tokenizer, plan.prompt_format)
    pad = choose_pad(plan.tokenizer, stop)
    gates.check_rows(train_rows, stop, pad)
    plan.tokenizer.pad_token_id = pad
    collate = Collator(pad)
    if train_rows.skipped:
        progress.warn(
            f"{train_rows.skipped} of {len(plan.train)} rows are longer than "
            f"{plan.recipe.training.max_length} tokens and are left out"
        )
    progress.note(gates.announce(plan.objective, train_rows[0], plan.tokenizer))
    # The seed comes before the adapter: its first weights are random.
    torch.manual_seed(plan.recipe.training.seed)
    model = _load(plan, quantized=True)
    batch_size = plan.recipe.training.batch_size
    base_logits = gates.probe(model, train_rows, collate)
    facts: dict[str, Any] = {}
    if len(holdout_rows) and plan.objective.likelihood:
        facts["holdout_loss_base"] = mean_loss(model, holdout_rows, collate, batch_size)
    method = cast("protocols.Method", load_plugins().load_implementation(plan.method)())
    model = method.attach(model, plan.method_options, prepared=plan.quantizer is not None)
    run = Run(
        plan, model, train_rows, holdout_rows, collate, directory, compute_device(),
        plan.steps(len(train_rows)), facts=facts,
    )  # fmt: skip
    run.layers = gates.check_gradients(model, first_batch(run))
    return run, base_logits


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
    if quantizer is not None:
        return quantizer.prepare(model)
    return model.to(compute_device())


def _take_steps(run: Run, progress: protocols.Progress, checkpoint: Path | None) -> None:
    objective = cast(
        "protocols.Objective", load_plugins().load_implementation(run.plan.objective)()
    )
    trainer = objective.trainer(run)
    begun = time.monotonic()
    with progress.task(f"training {run.plan.name}", run.steps) as task:
        trainer.add_callback(Bar(trainer, task))
        output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - begun
    run.history = list(trainer.state.log_history)
    run.facts.update(
        train_loss=output.training_loss,
        steps=trainer.state.global_step,
        tokens=trainer.seen_tokens,
        seconds=round(seconds, 2),
        tokens_per_second=round(trainer.seen_tokens / seconds, 1),
        resumed=checkpoint is not None,
        **trainer.held_out(),
    )


def _score_after(run: Run) -> None:
    if "holdout_loss_base" in run.facts:
        run.facts["holdout_loss"] = _holdout_loss(run, run.model)


def _holdout_loss(run: Run, model: Any) -> float:
    return mean_loss(model, run.holdout_rows, run.collate, run.recipe.training.batch_size)


def _check_after(
    run: Run, base_logits: torch.Tensor, payload: Path, progress: protocols.Progress
) -> None:
    adapted = gates.probe(run.model, run.train_rows, run.collate)
    gates.check_effect(base_logits, adapted)
    method = cast("protocols.Method", load_plugins().load_implementation(run.plan.method)())
    shutil.rmtree(payload, ignore_errors=True)
    method.save(run.model, payload)
    fresh: Any = method.load(_load(run.plan, quantized=True), payload)
    gates.check_reload(adapted, gates.probe(fresh, run.train_rows, run.collate))
    if run.plan.quantizer is not None:
        # It is served over the base itself, which its gradients never saw.
        if "holdout_loss" in run.facts:
            served = method.load(_load(run.plan, quantized=False), payload)
            run.facts["holdout_loss_served"] = _holdout_loss(run, served)
    elif run.plan.method.mergeable:
        merged = fresh.merge_and_unload()
        run.facts["merge_difference"] = gates.check_merge(
            adapted, gates.probe(merged, run.train_rows, run.collate)
        )


def describe(facts: Mapping[str, Any]) -> str:
    """The figures of a run in one line."""
    parts = [f"train loss {facts['train_loss']:.3f}"]
    if "holdout_loss" in facts:
        parts.append(
            f"held-out loss {facts['holdout_loss']:.3f} (base {facts['holdout_loss_base']:.3f})"
        )
    if "holdout_accuracy" in facts:
        parts.append(f"held-out pairs told apart {100 * facts['holdout_accuracy']:.1f} %")
    if "holdout_loss_served" in facts:
        parts.append(f"over the base as it is served {facts['holdout_loss_served']:.3f}")
    parts.append(f"{facts['steps']} steps, {facts['tokens_per_second']:.0f} tokens/s")
    return ", ".join(parts)
