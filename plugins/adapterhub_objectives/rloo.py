"""REINFORCE leave-one-out (Ahmadian et al. 2024) by TRL."""

from __future__ import annotations

from trl import RLOOConfig, RLOOTrainer

from adapterhub.train.run import Run
from adapterhub_objectives.online import (
    OnlineTrainer,
    online_arguments,
    online_settings,
    settle,
)


class Rloo:
    """The objective `rloo`."""

    def trainer(self, run: Run) -> RlooRunTrainer:
        """A trainer over questions."""
        return RlooRunTrainer(run)


class RlooRunTrainer(OnlineTrainer, RLOOTrainer):  # type: ignore[misc]
    """TRL's trainer, tied to a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        settings = RLOOConfig(**online_settings(run))
        super().__init__(args=settings, **online_arguments(run))
        settle(self, run)
