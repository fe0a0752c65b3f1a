"""What losses are made of, computed row by row in float64; and the quick training of tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from adapterhub.train.rows import Row

FAST = ("-o", "training.max_steps=2", "-o", "training.batch_size=4", "-o", "training.lr=1e-2",
        "-o", "method.r=4")  # fmt: skip


def log_probability(model: Any, row: Row) -> float:
    """Of the tokens from `start` on, in float64, by the whole softmax at every position."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    chosen = torch.log_softmax(logits, dim=-1)
    return sum(float(chosen[at - 1, row.ids[at]]) for at in range(row.start, len(row.ids)))


def both(trainer: Any, row: Row) -> tuple[float, float]:
    """What is learnt of a row: its log-probability with the adapter and without."""
    with trainer.run.model.disable_adapter():
        before = log_probability(trainer.run.model, row)
    return log_probability(trainer.run.model, row), before


def worse(row: Row) -> Row:
    return Row((*row.ids[: row.start], *row.rejected), row.start)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def loss_of(trainer: Any, count: int) -> float:
    batch = trainer.collate(trainer.train_dataset[:count])
    with torch.no_grad():
        return float(trainer.compare(trainer.run.model.eval(), batch))
