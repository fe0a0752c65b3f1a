"""Direct preference optimisation (Rafailov et al. 2023, equation 7), and its losses of SLiC
(Zhao et al. 2023) and IPO (Azar et al. 2023, equation 17, by the token as in TRL)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from adapterhub.train.batches import Batch
from adapterhub.train.loss import answer_log_probs
from adapterhub.train.rows import IGNORED
from adapterhub.train.run import Run
from adapterhub_objectives.answers import AnswersTrainer


class Dpo:
    """The objective `dpo`."""

    def trainer(self, run: Run) -> DpoTrainer:
        """A trainer over pairs."""
        return DpoTrainer(run)


class DpoTrainer(AnswersTrainer):
    """Raises the better answers over the worse, measured from the model before training."""

    has_reference = True

    def compare(self, model: Any, batch: Batch) -> torch.Tensor:
        """The mean loss of the pairs."""
        options: Any = self.run.plan.objective_options
        beta: float = options.beta
        gains = answer_log_probs(model, batch) - batch["reference"]
        better, worse = gains.chunk(2)
        self.tell_apart(beta * better, beta * worse)
        if options.loss == "ipo":
            lengths = (batch["labels"] != IGNORED).sum(dim=1)
            better, worse = (gains / lengths).chunk(2)
            return ((better - worse - 1 / (2 * beta)) ** 2).mean()
        margin = beta * (better - worse)
        if options.loss == "hinge":
            return torch.relu(1 - margin).mean()
        loss: torch.Tensor = -logsigmoid(margin).mean()
        return loss
