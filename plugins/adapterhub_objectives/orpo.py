"""Odds ratio preference optimisation (Hong et al. 2024, equations 1, 6 and 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from adapterhub.train.batches import Batch
from adapterhub.train.loss import answer_log_probs
from adapterhub.train.rows import IGNORED
from adapterhub.train.run import Run
from adapterhub_objectives.answers import AnswersTrainer


class Orpo:
    """The objective `orpo`."""

    def trainer(self, run: Run) -> OrpoTrainer:
        """A trainer over pairs."""
        return OrpoTrainer(run)


class OrpoTrainer(AnswersTrainer):
    """The likelihood of the better answers, and the odds of them against the worse.

    As in the paper the likelihood is that of the answers, each by the token; TRL takes prompts in,
    which the other objectives do not learn either, and lets long answers count for more.
    """

    def compare(self, model: Any, batch: Batch) -> torch.Tensor:
        """The mean loss of the pairs."""
        options: Any = self.run.plan.objective_options
        sums = answer_log_probs(model, batch)
        lengths = (batch["labels"] != IGNORED).sum(dim=1)
        better, worse = (sums / lengths).chunk(2)
        self.tell_apart(options.beta * better, options.beta * worse)
        odds = better - worse - (_log_not(better) - _log_not(worse))
        loss: torch.Tensor = -(better + options.beta * logsigmoid(odds)).mean()
        return loss


def _log_not(log_probability: torch.Tensor) -> torch.Tensor:
    """log(1 - p) of log p; p is never quite 1, where it would be infinite."""
    return torch.log(-torch.expm1(log_probability.clamp(max=-1e-7)))
