"""DPO's losses against a brute force, and pairs that it learns to tell apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .brute_force import FAST, both, loss_of, mean, sigmoid, worse


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_dpo(loss: str, trainer_of: Callable[..., Any]) -> None:
    trainer = trainer_of("preference", {"name": "dpo", "beta": 0.3, "loss": loss})
    expected = []
    for row in trainer.run.train_rows.rows[:5]:
        gains = []
        for answer in (row, worse(row)):
            now, before = both(trainer, answer)
            length = len(answer.ids) - answer.start
            gains.append((now - before) / (length if loss == "ipo" else 1))
        margin = gains[0] - gains[1]
        expected.append(
            {
                "sigmoid": lambda m: -math.log(sigmoid(0.3 * m)),
                "hinge": lambda m: max(0.0, 1 - 0.3 * m),
                "ipo": lambda m: (m - 1 / 0.6) ** 2,
            }[loss](margin)
        )
    assert loss_of(trainer, 5) == pytest.approx(mean(expected), rel=1e-4)


def test_dpo_learns_to_tell_pairs_apart(
    adz: Any, tiny_base: Any, rows_file: Callable[[str], Path]
) -> None:
    done = adz("train", "--objective", "dpo", "--data", rows_file("preference"), "--json",
               *FAST, "-o", "training.max_steps=12", "-o", "data.holdout=0.2")  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["holdout_accuracy"] > 0.7
    assert metrics["holdout_objective"] < math.log(2)
