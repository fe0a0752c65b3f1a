"""KTO's loss against a brute force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.train.rows import Row

from .brute_force import both, loss_of, mean, sigmoid


def test_kto(trainer_of: Callable[..., Any]) -> None:
    options = {"name": "kto", "beta": 0.4, "desirable_weight": 2.0, "undesirable_weight": 0.5}
    trainer = trainer_of("unpaired_preference", options)
    rows = trainer.run.train_rows.rows[:4]
    drifts = []
    for row, other in zip(rows, [rows[3], *rows[:3]], strict=True):
        now, before = both(
            trainer, Row((*row.ids[: row.start], *other.ids[other.start :]), row.start)
        )
        drifts.append(now - before)
    kl = max(0.0, mean(drifts))
    expected = []
    for row in rows:
        now, before = both(trainer, row)
        if row.desirable:
            expected.append(2.0 * (1 - sigmoid(0.4 * (now - before - kl))))
        else:
            expected.append(0.5 * (1 - sigmoid(0.4 * (kl - now + before))))
    assert {row.desirable for row in rows} == {True, False}
    assert loss_of(trainer, 4) == pytest.approx(mean(expected), rel=1e-4)
