"""GRPO and RLOO: a model's own answers, with rewards of a function and of an adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.plugins import open_registry

from .brute_force import FAST


@pytest.mark.parametrize("objective", ["grpo", "rloo"])
def test_own_answers_and_a_reward_function(
    objective: str,
    adz: Any,
    tiny_base: Any,
    rows_file: Callable[[str], Path],
    length_reward: None,
) -> None:
    done = adz("train", "--objective", objective, "--data", rows_file("prompt"), *FAST,
               "-o", "objective.rewards=[{function: spaces}]", "-o", "objective.max_answer=8",
               "--name", "own")  # fmt: skip
    assert done.code == 0, done.err
    assert "the model is asked: Word: " in done.err
    manifest = open_registry().resolve("own").manifest
    assert manifest.objective == objective
    assert manifest.metrics["steps"] == 2
    assert manifest.metrics["tokens"] > 0
    assert "holdout_loss" not in manifest.metrics


def test_own_answers_and_a_trained_reward(
    adz: Any, tiny_base: Any, rows_file: Callable[[str], Path]
) -> None:
    trained = adz("train", "--objective", "reward", "--data", rows_file("preference"), *FAST,
                  "--name", "judge")  # fmt: skip
    assert trained.code == 0, trained.err
    arguments = ("train", "--objective", "grpo", "--data", rows_file("prompt"), *FAST,
                 "-o", "objective.max_answer=8", "--name", "own")  # fmt: skip
    done = adz(*arguments, "-o", "objective.rewards=[{adapter: judge@1}]")
    assert done.code == 0, done.err
    refused = adz(*arguments, "-o", "objective.rewards=[{adapter: own@1}]")
    assert refused.code == 2
    assert "own@1 gives no rewards: its objective is grpo" in refused.err
