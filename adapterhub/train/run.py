"""The pipeline: a plan in, a committed version out."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from adapterhub import protocols
from adapterhub.data import stop_token
from adapterhub.errors import AdzError
from adapterhub.home import adz_home
from adapterhub.manifest import BaseRecord, Version
from adapterhub.models import compute_device, load_base
from adapterhub.plugins import load_plugins
from adapterhub.train import gates
from adapterhub.train.loss import mean_loss
from adapterhub.train.plan import Plan
from adapterhub.train.recipe import TrainRecipe
from adapterhub.train.result import commit_run
from adapterhub.train.rows import Collator, Rows, choose_pad, make_rows
from adapterhub.train.trainer import COMPLETE, Bar


@dataclass(slots=True)
class Run:
    """A prepared run, as events and objectives get it.

    `model` has the adapter attached; `steps` are optimizer steps; `directory` holds the
    checkpoints. `facts` collects what the manifest keeps under `metrics`.
    """

    plan: Plan
    model: Any
    train_rows: Rows
    holdout_rows: Rows
    collate: Collator
    directory: Path
    device: torch.device
    steps: int
    layers: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def recipe(self) -> TrainRecipe:
        """The resolved recipe."""
        return self.plan.recipe

    @property
    def base(self) -> BaseRecord:
        """The base that is adapted."""
        return self.plan.base

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        return self.plan.tokenizer


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
    with _alone(directory):
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
        load_plugins().call_event("adapterhub_after_train", run=run, result=run.facts)
        return commit_run(run, registry, payload, directory / "artifacts")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Refuse a second process in the same run: the two would overwrite each other's files."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AdzError(
                "another process is in the middle of this very run", "wait for it, or stop it"
            ) from None
        yield


def run_directory(plan: Plan) -> Path:
    """Where a run keeps its checkpoints: equal recipe, base and data share it."""
    short = plan.digest().removeprefix("sha256:")[:12]
    return adz_home() / "runs" / f"{plan.name.replace('/', '--')}-{short}"


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    found = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in directory.glob("checkpoint-*")
        # Written last, and only then is the checkpoint whole.
        if path.name.removeprefix("checkpoint-").isdigit() and (path / COMPLETE).is_file()
    }
    return found[max(found)] if found else None


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
    progress.note(f"the loss sees (all but [...]): {gates.preview(train_rows[0], plan.tokenizer)}")
    # The seed comes before the adapter: its first weights are random.
    torch.manual_seed(plan.recipe.training.seed)
    model = _load(plan)
    batch_size = plan.recipe.training.batch_size
    base_logits = gates.probe(model, train_rows, collate)
    facts: dict[str, Any] = {}
    if len(holdout_rows):
        facts["holdout_loss_base"] = mean_loss(model, holdout_rows, collate, batch_size)
    method = cast("protocols.Method", load_plugins().load_implementation(plan.method)())
    model = method.attach(model, plan.method_options, prepared=plan.quantizer is not None)
    run = Run(
        plan, model, train_rows, holdout_rows, collate, directory, compute_device(),
        plan.steps(len(train_rows)), facts=facts,
    )  # fmt: skip
    run.layers = gates.check_gradients(model, _first_batch(run))
    return run, base_logits


def _load(plan: Plan) -> Any:
    arguments: dict[str, Any] = {}
    quantizer: protocols.Quantizer | None = None
    if plan.quantizer:
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


def _first_batch(run: Run) -> dict[str, torch.Tensor]:
    size = min(run.recipe.training.batch_size, len(run.train_rows))
    batch = run.collate([run.train_rows[index] for index in range(size)])
    return {key: value.to(run.device) for key, value in batch.items()}


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
    )


def _score_after(run: Run) -> None:
    if len(run.holdout_rows):
        run.facts["holdout_loss"] = mean_loss(
            run.model, run.holdout_rows, run.collate, run.recipe.training.batch_size
        )


def _check_after(
    run: Run, base_logits: torch.Tensor, payload: Path, progress: protocols.Progress
) -> None:
    adapted = gates.probe(run.model, run.train_rows, run.collate)
    gates.check_effect(base_logits, adapted)
    method = cast("protocols.Method", load_plugins().load_implementation(run.plan.method)())
    shutil.rmtree(payload, ignore_errors=True)
    method.save(run.model, payload)
    fresh: Any = method.load(_load(run.plan), payload)
    gates.check_reload(adapted, gates.probe(fresh, run.train_rows, run.collate))
    # Merging into a quantised base would round the adapter away with it.
    if run.plan.method.mergeable and run.plan.quantizer is None:
        merged = fresh.merge_and_unload()
        run.facts["merge_difference"] = gates.check_merge(
            adapted, gates.probe(merged, run.train_rows, run.collate)
        )


@contextmanager
def explained(plan: Plan, directory: Path) -> Iterator[None]:
    """Out of memory, a full disk and an interrupt become one sentence with what to do next."""
    training = plan.recipe.training
    try:
        yield
    except KeyboardInterrupt:
        kept = last_checkpoint(directory)
        step = kept.name.removeprefix("checkpoint-") if kept else None
        hint = f"; --resume goes on from step {step}" if step else "; no checkpoint was written yet"
        raise AdzError(f"interrupted: nothing was committed{hint}", exit_code=130) from None
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise AdzError(
            "out of memory",
            f"lower training.batch_size (now {training.batch_size}) and raise "
            "training.accumulation, lower training.max_length, or use --quantizer nf4",
        ) from error
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise AdzError(
            f"no space left on the disk of {directory.parent}",
            "free some, then go on with --resume",
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text


def _is_full_disk(error: BaseException) -> bool:
    return getattr(error, "errno", None) == 28 or "No space left on device" in str(error)


def describe(facts: Mapping[str, Any]) -> str:
    """The figures of a run in one line."""
    parts = [f"train loss {facts['train_loss']:.3f}"]
    if "holdout_loss" in facts:
        parts.append(
            f"held-out loss {facts['holdout_loss']:.3f} (base {facts['holdout_loss_base']:.3f})"
        )
    parts.append(f"{facts['steps']} steps, {facts['tokens_per_second']:.0f} tokens/s")
    return ", ".join(parts)
