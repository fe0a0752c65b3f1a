"""ORPO's loss against a brute force with TRL's odds ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from adapterhub.train.rows import Row

from .brute_force import log_probability, loss_of, worse


def test_orpo(trainer_of: Callable[..., Any]) -> None:
    from trl.experimental.orpo import ORPOTrainer

    trainer = trainer_of("preference", {"name": "orpo", "beta": 0.2})
    rows = trainer.run.train_rows.rows[:5]

    def per_token(answers: Sequence[Row]) -> torch.Tensor:
        values = [log_probability(trainer.run.model, a) / (len(a.ids) - a.start) for a in answers]
        return torch.tensor(values, dtype=torch.float64)

    # TRL's own odds ratio; it needs nothing of a trainer but these two.
    stand_in = type("Settings", (), {"beta": 0.2, "accelerator": torch.zeros(1)})()
    theirs, *_ = ORPOTrainer.odds_ratio_loss(
        stand_in, per_token(rows), per_token([worse(r) for r in rows])
    )
    expected = -float((per_token(rows) + theirs).mean())
    assert loss_of(trainer, 5) == pytest.approx(expected, rel=1e-4)
