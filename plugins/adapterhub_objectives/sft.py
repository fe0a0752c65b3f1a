"""Supervised fine-tuning with TRL's trainer and our loss."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from adapterhub.train.loss import completion_loss
from adapterhub.train.run import Run, first_batch
from adapterhub.train.speed import quickened
from adapterhub.train.trainer import RunTrainer, trainer_settings


class Sft:
    """The objective `sft`."""

    def trainer(self, run: Run) -> SftTrainer:
        """A trainer over the run's token rows."""
        return SftTrainer(run)


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
        with quickened([self.run.model], first_batch(self.run)) as quick:
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
        loss = loss / (tokens if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss
