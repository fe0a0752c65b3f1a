"""An objective: fine-tuning with smoothed labels (arXiv:1512.00567, section 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainingArguments

from adapterhub.train.run import Run
from adapterhub.train.trainer import RunTrainer, trainer_settings


class Smooth:
    """A `protocols.Objective`."""

    def trainer(self, run: Run) -> SmoothTrainer:
        """A trainer over the run's token rows."""
        return SmoothTrainer(run)


class SmoothTrainer(RunTrainer, Trainer):  # type: ignore[misc]
    """RunTrainer stands first: it keeps checkpoints small, and the order of rows reproducible."""

    def __init__(self, run: Run) -> None:
        super().__init__(
            model=run.model,
            args=TrainingArguments(**trainer_settings(run)),
            train_dataset=run.train_rows,
            eval_dataset=run.holdout_rows,
            data_collator=run.collate,
        )
        self._smoothing: float = run.plan.objective_options.smoothing  # type: ignore[attr-defined]
        self.follow(run)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Nats a scored token, averaged over all batches of a step. Labels of -100 are not
        scored: the prompt's and the padding's."""
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        labels = inputs["labels"][:, 1:]
        logits = output.logits[:, -inputs["labels"].shape[1] :][:, :-1].float()
        total = cross_entropy(
            logits.flatten(0, 1), labels.flatten(),
            ignore_index=-100, reduction="sum", label_smoothing=self._smoothing,
        )  # fmt: skip
        scored = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return (total / scored, {}) if return_outputs else total / scored
