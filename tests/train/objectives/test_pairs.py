"""Pairs of answers are batched and measured as the page for authors of objectives does it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterhub.data import stop_token
from adapterhub.train.rows import Row

from .brute_force import worse

PAGE = Path(__file__).resolve().parents[3] / "docs" / "authors" / "objective.md"


def test_pairs_are_batched_as_the_page_for_authors_says(trainer_of: Callable[..., Any]) -> None:
    (recipe,) = re.findall(r"## Pairs\n.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(recipe, names)
    trainer = trainer_of("preference", {"name": "orpo"})
    rows = trainer.run.train_rows.rows[:5]
    assert all(row.rejected[-1] == stop_token(trainer.run.tokenizer, "plain") for row in rows)
    ours = trainer.collate(trainer.train_dataset[:5])
    theirs = names["collate"](trainer, rows)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_pairs_are_measured_as_the_page_for_authors_says(trainer_of: Callable[..., Any]) -> None:
    (code,) = re.findall(
        r"```python\n((?:(?!```).)*def held_out.*?)```", PAGE.read_text(), re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(code, names)
    trainer = trainer_of("preference", {"name": "orpo"})
    rows = trainer.run.holdout_rows
    assert len(rows) % trainer.args.per_device_eval_batch_size
    trainer.collate, ours = partial(pairs, trainer.run), trainer.held_out()["holdout_objective"]
    assert names["held_out"](trainer)["holdout_objective"] == pytest.approx(ours, rel=1e-5)


def pairs(run: Any, rows: Sequence[Row]) -> Any:
    """A batch as that page makes it of rows."""
    return run.collate([*rows, *map(worse, rows)])
