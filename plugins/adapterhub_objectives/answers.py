"""What the trainers that learn from rows of judged or paired answers have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from adapterhub.train.batches import Batch
from adapterhub.train.loss import answer_log_probs, evaluating
from adapterhub.train.rows import Row, Rows
from adapterhub.train.run import Run
from adapterhub.train.trainer import RunTrainer, products, trainer_settings


@dataclass(frozen=True, slots=True)
class Judged:
    """The answers of a row that are compared; of pairs the better one first.

    reference: how likely each was before training, in nats, where the objective asks for it.
    """

    answers: tuple[Row, ...]
    reference: tuple[float, ...] = ()


class AnswersTrainer(RunTrainer, Trainer):  # type: ignore[misc]
    """Scores the answers of a batch and compares them; subclasses say how.

    has_reference: whether the answers' log-probabilities before training are needed.
    """

    has_reference = False

    def __init__(self, run: Run) -> None:
        self.run = run
        settings = TrainingArguments(**trainer_settings(run))
        super().__init__(
            model=run.model,
            args=settings,
            train_dataset=self._judged(run.train_rows),
            eval_dataset=self._judged(run.holdout_rows),
            data_collator=self.collate,
            processing_class=run.tokenizer,
        )
        # The losses are means over rows: the Trainer divides by the batches of a step.
        self.model_accepts_loss_kwargs = False
        self.figures: dict[str, list[float]] = defaultdict(list)
        self.follow(run)

    def answers(self, rows: Sequence[Row]) -> list[tuple[Row, ...]]:
        """The answers that are scored for each row, of a block of as many as in a batch."""
        return [(row, Row((*row.ids[: row.start], *row.rejected), row.start)) for row in rows]

    def compare(self, model: Any, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch over the answers of its rows."""
        raise NotImplementedError

    def collate(self, judged: Sequence[Judged]) -> Batch:
        """Token rows, first the first answers of all; `reference` is (answers,)."""
        batch: Batch = self.run.collate(_by_place([one.answers for one in judged]))
        if self.has_reference:
            batch["reference"] = torch.tensor(_by_place([one.reference for one in judged]))
        return batch

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, **rest: Any
    ) -> Any:
        """The mean loss of a batch."""
        loss = self.compare(model, inputs)
        return (loss, {}) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: Batch, *rest: Any, **more: Any) -> Any:
        """The loss of held-out rows, without gradients."""
        with torch.no_grad():
            loss = self.compare(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
        """With the means of what was seen since the last time."""
        figures = {name: fmean(values) for name, values in self.figures.items()}
        self.figures.clear()
        super().log({**logs, **figures}, *rest, **more)

    def held_out(self) -> dict[str, float]:
        """The mean loss of the held-out rows, and how many pairs are told apart."""
        if not len(self.run.holdout_rows):
            return {}
        self.figures.clear()
        with evaluating(self.run.model):
            losses = [float(self.prediction_step(self.run.model, b)[0]) for b in self._batches()]
        size, rows = self.run.recipe.training.batch_size, len(self.run.holdout_rows)
        # The last batch may be short.
        weights = [min(size, rows - begin) for begin in range(0, rows, size)]
        found = {"holdout_objective": fmean(losses, weights)}
        if "rewards/accuracy" in self.figures:
            found["holdout_accuracy"] = fmean(self.figures["rewards/accuracy"], weights)
        self.figures.clear()
        return found

    def tell_apart(self, better: torch.Tensor, worse: torch.Tensor) -> None:
        """Remember how often and by how much the better answers have the higher reward."""
        margin = (better - worse).detach()
        self.figures["rewards/accuracy"].append(float((margin > 0).float().mean()))
        self.figures["rewards/margin"].append(float(margin.mean()))

    def _batches(self) -> Iterator[Batch]:
        size = self.run.recipe.training.batch_size
        rows: list[Judged] = self.eval_dataset
        for begin in range(0, len(rows), size):
            yield self.collate(rows[begin : begin + size])

    def _judged(self, rows: Rows) -> list[Judged]:
        size = self.run.recipe.training.batch_size
        found = []
        for begin in range(0, len(rows), size):
            answers = self.answers(rows.rows[begin : begin + size])
            reference = self._reference(answers) if self.has_reference else [()] * len(answers)
            found += [Judged(*both) for both in zip(answers, reference, strict=True)]
        return found

    def _reference(self, answers: list[tuple[Row, ...]]) -> list[tuple[float, ...]]:
        model = self.run.model
        batch = self.run.collate(_by_place(answers))
        with evaluating(model), torch.no_grad(), products(self.run):
            values = answer_log_probs(model, {k: v.to(self.run.device) for k, v in batch.items()})
        return [tuple(row) for row in values.reshape(-1, len(answers)).T.tolist()]


def _by_place(groups: Sequence[tuple[Any, ...]]) -> list[Any]:
    """First the first of every group, then the second of every group."""
    return [part for column in zip(*groups, strict=True) for part in column]
