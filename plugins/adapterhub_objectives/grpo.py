"""Group relative policy optimisation (Shao et al. 2024) by TRL."""

from __future__ import annotations

from trl import GRPOConfig, GRPOTrainer

from adapterhub.train.run import Run
from adapterhub_objectives.online import (
    OnlineTrainer,
    online_arguments,
    online_settings,
    settle,
)


class Grpo:
    """The objective `grpo`."""

    def trainer(self, run: Run) -> GrpoRunTrainer:
        """A trainer over questions."""
        return GrpoRunTrainer(run)


class GrpoRunTrainer(OnlineTrainer, GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, tied to a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        settings = GRPOConfig(**online_settings(run))
        super().__init__(args=settings, **online_arguments(run))
        settle(self, run)
