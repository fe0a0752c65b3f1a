"""Supervised fine-tuning with TRL's trainer and our loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from adapterhub.errors import AdzError
from adapterhub.train.loss import completion_loss, tree_losses
from adapterhub.train.memory import give_back_freed_memory
from adapterhub.train.pipeline import method_of
from adapterhub.train.run import Run, first_batch
from adapterhub.train.speed import Ranges, quickened
from adapterhub.train.trainer import RunTrainer, trainer_settings
from adapterhub.train.tree import plant

_ENOUGH_TOKENS, _ENOUGH_TOKENS_GPU = 512, 16_384
"""Products of more rows than these are hardly faster, on a CPU of few cores and on a GPU; the
second was not measured."""


class Sft:
    """The objective `sft`."""

    def trainer(self, run: Run) -> SftTrainer:
        """A trainer over the run's token rows."""
        return SftTrainer(run)

    def joint_trainer(self, runs: Sequence[Run]) -> JointSftTrainer:
        """A trainer of all the runs' adapters, side by side."""
        return JointSftTrainer(runs)


class SftTrainer(RunTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, with logits at completion positions only."""

    def __init__(self, run: Run) -> None:
        settings = SFTConfig(
            **trainer_settings(run),
            # The rows are tokenised and their labels set already.
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
        )
        # TRL takes nothing but a Dataset, of which it reads the first row; ours follow below.
        stand_in = Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]})
        # TRL casts the adapter over a quantised base to bfloat16; ours stays as it was made.
        made = {name: p.data for name, p in run.model.named_parameters() if p.requires_grad}
        super().__init__(
            model=run.model,
            args=settings,
            train_dataset=stand_in,
            eval_dataset=stand_in,
            data_collator=run.collate,
            processing_class=run.tokenizer,
        )
        self.train_dataset = run.train_rows
        self.eval_dataset = run.holdout_rows
        for name, parameter in run.model.named_parameters():
            if name in made:
                parameter.data = made[name]
        self.follow(run)

    def train(self, *arguments: Any, **options: Any) -> Any:
        """As transformers', with the model quickened for the time of it."""
        with quickened([self.run.model], first_batch(self.run), method_of(self.run.plan)) as quick:
            self.run.facts["quickened"] = quick
            return super().train(*arguments, **options)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Nats a scored token, averaged over all batches of a step."""
        loss, tokens = completion_loss(model, inputs)
        if num_items_in_batch is None:
            loss = loss / tokens
        else:
            # Counted over all processes, whose gradients are averaged.
            loss = loss * self.accelerator.num_processes / num_items_in_batch
        return (loss, {}) if return_outputs else loss


class Together(torch.nn.Module):
    """Models over one base as one: what is trained is the adapter of each."""

    def __init__(self, models: Sequence[Any]) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(models)
        self.config = models[0].config


class JointSftTrainer(SftTrainer):
    """Trains adapters that differ in rank, scale, targets, learning rate or weight decay.

    Each sees the rows that it would see alone, in the same order, and has a gradient, a norm to
    be clipped at, a learning rate and an optimizer state of its own; the base's layers compute
    for all of them at once.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        super().__init__(runs[0])
        self._runs = runs
        self._ranges = Ranges()
        self._members = range(len(runs))
        self._losses = torch.zeros(len(runs))
        self._norms = torch.zeros(len(runs))
        self.model = self.model_wrapped = Together([run.model for run in runs])

    def train(self, *arguments: Any, **options: Any) -> Any:
        """As transformers'. Raises AdzError where only the model itself knows its attention."""
        models, method = [run.model for run in self._runs], method_of(self.run.plan)
        with quickened(models, first_batch(self.run), method, self._ranges) as quick:
            if not quick:
                raise AdzError("this base cannot train several adapters in one pass")
            return super(SftTrainer, self).train(*arguments, **options)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """One group of parameters a run, with its learning rate and weight decay."""
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        groups = [
            {
                "params": [p for p in run.model.parameters() if p.requires_grad],
                "lr": run.recipe.training.lr,
                "weight_decay": run.recipe.training.weight_decay,
            }
            for run in self._runs
        ]
        optimizer: torch.optim.Optimizer = kind(groups, **options)
        self.optimizer = optimizer
        return optimizer

    def forward_backward(self, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        """So many runs at once as make the base's products large; all of them would only keep
        more activations."""
        tree, count = plant(inputs), len(self._runs)
        enough = _ENOUGH_TOKENS if self.run.device.type == "cpu" else _ENOUGH_TOKENS_GPU
        at_once = max(1, enough // len(tree.ids))
        losses = []
        for begin in range(0, count, at_once):
            # Between the gradients and states of many runs are holes that no activation fits into.
            give_back_freed_memory()
            self._members = range(begin, min(begin + at_once, count))
            losses.append(super().forward_backward(model, {**inputs, "tree": tree}, *rest))
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The sum of the losses of the runs whose turn it is, each in nats a scored token."""
        tree, members = inputs["tree"], self._members
        size = len(tree.ids)
        self._ranges.bounds = [None] * len(self._runs)
        for place, member in enumerate(members):
            self._ranges.bounds[member] = (place * size, (place + 1) * size)
        # What is wrapped in mixed precision is `Together`, whose own forward pass nobody calls.
        with self.accelerator.autocast():
            losses = torch.stack(tree_losses(self.run.model, (tree,) * len(members)))
        scored = len(tree.targets) if num_items_in_batch is None else num_items_in_batch
        losses = losses / scored
        self._losses[members.start : members.stop] += losses.detach().cpu()
        return (losses.sum(), {}) if return_outputs else losses.sum()

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Each run's gradient by its own norm, so that one that explodes leaves the others as
        they are; the largest norm is returned."""
        limit = self.args.max_grad_norm or float("inf")
        norms = []
        for run in self._runs:
            trained = [p for p in run.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm([p.grad for p in trained])
            if norm > limit:
                torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
            norms.append(norm.cpu())
        self._norms = torch.stack(norms)
        return self._norms.max()

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # transformers' own would multiply every gradient by one number where nothing is clipped.
        return self._clip_grad_norm(model) if grad_norm is None else grad_norm

    def log(self, logs: dict[str, Any], *rest: Any, **options: Any) -> None:
        """With each run's own loss and norm beside the sum."""
        if "loss" in logs:
            logs["losses"], logs["grad_norms"] = self._losses.tolist(), self._norms.tolist()
            logs["learning_rates"] = [group["lr"] for group in self.optimizer.param_groups]
            self._losses.zero_()
        super().log(logs, *rest, **options)
