"""What every trainer of a run has: settings for this machine, the order of the rows,
checkpoints of the adapter alone, a progress bar."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from adapterhub import protocols
from adapterhub.train import reports
from adapterhub.train.batches import LengthGroups, Shuffled
from adapterhub.train.profile import choose_profile
from adapterhub.train.recipe import TrainingOptions
from adapterhub.train.scale import rank, world

if TYPE_CHECKING:
    from adapterhub.train.run import Run

WEIGHTS = "trainable.safetensors"
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
"""A recipe's optimizers by transformers' names."""
COMPLETE = "complete"
"""Written last: a checkpoint without it was cut off."""


def trainer_settings(run: Run) -> dict[str, Any]:
    """Keyword arguments for `transformers.TrainingArguments` or a subclass of it."""
    training, profile = run.recipe.training, choose_profile(run.plan)
    on_cpu = run.device.type == "cpu"
    return {
        "output_dir": str(run.directory),
        "use_cpu": on_cpu,
        "bf16": profile.autocast == "bfloat16",
        "fp16": False,
        "gradient_checkpointing": profile.checkpointing,
        "ddp_find_unused_parameters": run.unused_parameters,
        # A recipe's batch is that of all processes together.
        "per_device_train_batch_size": training.batch_size // world(),
        "per_device_eval_batch_size": training.batch_size // world(),
        "gradient_accumulation_steps": training.accumulation,
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "learning_rate": training.lr,
        **_schedule(training),
        "warmup_steps": int(run.steps * training.warmup),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip,
        "optim": OPTIMIZERS[training.optimizer],
        "seed": training.seed,
        "eval_strategy": "steps" if training.eval_every and len(run.holdout_rows) else "no",
        "eval_steps": training.eval_every,
        "prediction_loss_only": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": training.save_every,
        "save_total_limit": 2,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not on_cpu,
        "remove_unused_columns": False,
        **reports.settings(run),
        "disable_tqdm": True,
        "log_level": "error",
    }


def products(run: Run) -> AbstractContextManager[Any]:
    """Within it the model computes in the numbers that it is trained in."""
    found = choose_profile(run.plan).autocast
    kind = run.device.type
    return torch.autocast(kind, getattr(torch, found)) if found else nullcontext()


def _schedule(training: TrainingOptions) -> dict[str, Any]:
    if training.schedule == "cosine-restarts":
        options = {"num_cycles": training.restarts}
        return {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": options}
    names = {"constant": "constant_with_warmup"}
    return {"lr_scheduler_type": names.get(training.schedule, training.schedule)}


class RunTrainer:
    """Stands before a `transformers.Trainer` among the bases of an objective's trainer."""

    def follow(self, run: Run) -> None:
        """Tie the trainer to the run; called at the end of `__init__`."""
        trainer: Any = self
        self.run = run
        self.seen_tokens = self.step_rows = 0
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Shuffled:
        training, rows = self.run.recipe.training, self.run.train_rows
        if training.group_by_length:
            return LengthGroups(rows.lengths, training.batch_size, training.seed)
        return Shuffled(len(rows), training.seed)

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The batches of a step, and how many tokens they score."""
        batches, scored = super().get_batch_samples(*arguments)  # type: ignore[misc]
        if not self.run.plan.objective.generates:
            self.step_rows = sum(len(batch["attention_mask"]) for batch in batches)
        return batches, scored

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        """One batch forward and backward, its tokens counted. Where the loss is a mean over rows,
        the rows of all batches of a step count alike, also where the last batch is short."""
        trainer: Any = self
        tokens = inputs["attention_mask"].sum()
        if world() > 1:
            tokens = trainer.accelerator.reduce(tokens)
        self.seen_tokens += int(tokens)
        if self.step_rows and not trainer.model_accepts_loss_kwargs:
            # The Trainer divides a batch's mean by it.
            weight = self.step_rows / len(inputs["attention_mask"])
            trainer.current_gradient_accumulation_steps = weight
        return self.forward_backward(model, inputs, *rest)

    def forward_backward(self, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        """Add the gradient of a batch to what is there, and return the loss."""
        loss: torch.Tensor = super().training_step(model, inputs, *rest)  # type: ignore[misc]
        return loss

    def _save(self, output_dir: str, state_dict: Any = None) -> None:
        """A checkpoint holds what is trained; the base is where it always was."""
        directory = Path(output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        trained = {
            name: p.detach().cpu().contiguous()
            for name, p in cast("Any", self).model.named_parameters()
            if p.requires_grad
        }
        save_file(trained, directory / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        stored = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, parameter in cast("Any", self).model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(stored[name])

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        # Every process has written its random state by then.
        cast("Any", self).accelerator.wait_for_everyone()
        step = cast("Any", self).state.global_step
        if rank() == 0:
            (self.run.directory / f"checkpoint-{step}" / COMPLETE).touch()

    def held_out(self) -> dict[str, float]:
        """What else the manifest keeps of the held-out rows, by names that begin with `holdout_`.

        Called once after the last step, in every process, of which the first one's is kept. The
        model is in training mode, and gradients are on. Here nothing is measured: {}.
        """
        return {}

    def _send_telemetry(self) -> None:
        """None of TRL's."""

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """None: the version's manifest says more, and checkpoints are thrown away."""


class Bar(TrainerCallback):  # type: ignore[misc]
    """Moves a bar on: loss and tokens a second; the bar itself knows the time left."""

    def __init__(self, trainer: Any, task: protocols.Task) -> None:
        self._trainer = trainer
        self._task = task
        self._loss = float("nan")
        self._begun = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """A resumed run begins where it stopped."""
        if state.global_step:
            self._task.advance(state.global_step)
        self._begun = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """Remember the loss of the step."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """One step on."""
        speed = self._trainer.seen_tokens / max(time.monotonic() - self._begun, 1e-9)
        self._task.advance(1, f"loss {self._loss:.3f}, {speed:.0f} tokens/s")
