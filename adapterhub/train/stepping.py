"""What some methods do beside the gradient: begin at the data, and act at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from adapterhub import protocols
from adapterhub.errors import usage_error

if TYPE_CHECKING:
    import torch

    from adapterhub.train.run import Run

CALIBRATION_ROWS = 256
"""At most so many training rows are looked at."""


def calibrate(method: protocols.Method, run: Run) -> None:
    """Let a method that begins at the data see the first rows."""
    if not isinstance(method, protocols.CalibratedMethod):
        return
    size = run.recipe.training.batch_size
    count = min(len(run.train_rows), CALIBRATION_ROWS)
    batches: list[dict[str, torch.Tensor]] = []
    for begin in range(0, count, size):
        rows = [run.train_rows[index] for index in range(begin, min(begin + size, count))]
        batches.append({key: value.to(run.device) for key, value in run.collate(rows).items()})
    method.calibrate(run.model, batches)


def follow_steps(method: protocols.Method, run: Run, trainer: Any, *, resumed: bool) -> None:
    """Let a method act at every step of the trainer."""
    if not isinstance(method, protocols.SteppingMethod):
        return
    if resumed:
        raise usage_error(
            f"{run.plan.method.name} keeps a state over the steps that no checkpoint holds",
            "train from the start: leave --resume away",
        )
    method.begin(run.model, run.steps)
    trainer.add_callback(_Steps(method, run.model))


class _Steps(TrainerCallback):  # type: ignore[misc]
    def __init__(self, method: protocols.SteppingMethod, model: torch.nn.Module) -> None:
        self._method = method
        self._model = model

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The gradients are whole, and clipped."""
        self._method.before_step(self._model)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The Trainer counts the step afterwards, and only then forgets the gradients."""
        self._method.after_step(self._model, state.global_step + 1)
