"""The reward of an answer against a sequence classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterhub.data import stop_token

from .brute_force import loss_of, mean, sigmoid, worse


def test_reward_is_that_of_a_sequence_classifier(
    trainer_of: Callable[..., Any], tiny_base_dir: Path
) -> None:
    """transformers' own classifier over the same weights, its head the stop token's row."""
    from transformers import LlamaForSequenceClassification

    trainer = trainer_of("preference", {"name": "reward", "center": 0.1})
    merged = trainer.run.model.merge_and_unload()
    judge = LlamaForSequenceClassification.from_pretrained(tiny_base_dir, num_labels=1)
    judge.model.load_state_dict(merged.model.state_dict())
    stop = stop_token(trainer.run.tokenizer, "plain")
    judge.score.weight.data = merged.lm_head.weight.data[stop : stop + 1]
    expected = []
    for row in trainer.run.train_rows.rows[:5]:
        with torch.no_grad():
            good, bad = (
                float(judge(input_ids=torch.tensor([answer.ids])).logits)
                for answer in (row, worse(row))
            )
        expected.append(-math.log(sigmoid(good - bad)) + 0.1 * (good + bad) ** 2)
    trainer.run.model = merged
    assert loss_of(trainer, 5) == pytest.approx(mean(expected), rel=1e-4)
