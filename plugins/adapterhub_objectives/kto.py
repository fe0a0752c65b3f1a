"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, equation 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adapterhub.errors import usage_error
from adapterhub.train.batches import Batch
from adapterhub.train.loss import answer_log_probs
from adapterhub.train.rows import Row
from adapterhub.train.run import Run
from adapterhub_objectives.answers import AnswersTrainer, Judged


class Kto:
    """The objective `kto`."""

    def trainer(self, run: Run) -> KtoTrainer:
        """A trainer over judged answers."""
        judged = {row.desirable for row in run.train_rows}
        if len(judged) < 2:
            raise usage_error(
                f"every label is {str(judged.pop()).lower()}: kto needs good and bad answers",
                "sft learns from good ones alone",
            )
        if run.recipe.training.batch_size < 2:
            raise usage_error(
                "kto compares the rows of a batch", "training.batch_size is 2 or more"
            )
        return KtoTrainer(run)


class KtoTrainer(AnswersTrainer):
    """Raises good answers over, and lowers bad ones under, the mean drift of the model.

    The drift is estimated as in TRL on answers to other questions: of each row, the answer of
    the row before it among as many as make a batch.
    """

    has_reference = True

    def answers(self, rows: Sequence[Row]) -> list[tuple[Row, ...]]:
        """The answer, and that of the row before in the place of it."""
        before = [rows[-1], *rows[:-1]]
        return [
            (row, Row((*row.ids[: row.start], *other.ids[other.start :]), row.start))
            for row, other in zip(rows, before, strict=True)
        ]

    def collate(self, judged: Sequence[Judged]) -> Batch:
        """With `desirable`, (rows,) bool."""
        batch = super().collate(judged)
        batch["desirable"] = torch.tensor([bool(one.answers[0].desirable) for one in judged])
        return batch

    def compare(self, model: Any, batch: Batch) -> torch.Tensor:
        """The mean loss of the rows."""
        options: Any = self.run.plan.objective_options
        good = batch["desirable"]
        rows, mismatched = (
            {key: value[part] for key, value in batch.items() if key != "desirable"}
            for part in (slice(len(good)), slice(len(good), None))
        )
        with torch.no_grad():
            drift = answer_log_probs(model, mismatched) - mismatched["reference"]
        kl = drift.mean().clamp(min=0)
        gains = answer_log_probs(model, rows) - rows["reference"]
        weights = torch.where(good, options.desirable_weight, options.undesirable_weight)
        self.figures["kl"].append(float(kl))
        for name, chosen in (("good", good), ("bad", ~good)):
            if bool(chosen.any()):
                rewards = options.beta * gains[chosen].detach()
                self.figures[f"rewards/{name}"].append(float(rewards.mean()))
        margin = torch.where(good, gains - kl, kl - gains)
        return (weights * (1 - torch.sigmoid(options.beta * margin))).mean()
