"""What watches a run while it trains: alerts with a remedy, the best weights, a soft end."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback

from adapterhub.errors import AdzError
from adapterhub.protocols import Progress

LARGEST_NORM = 10.0
"""Gradients above it are an alert; a healthy run's are around 1."""

EXIT_TERMINATED = 143
BEST = "best.safetensors"


class Alerts(TrainerCallback):  # type: ignore[misc]
    """Warns once of each thing that goes wrong, with what helps; keeps what it said."""

    def __init__(self, progress: Progress) -> None:
        self.said: dict[str, str] = {}
        self._progress = progress
        self._first: float | None = None
        self._held: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """Look at a step's loss and norm, or at a score of the hold-out."""
        logs, step = logs or {}, state.global_step
        if logs.get("grad_norm", 0) > LARGEST_NORM:
            self._say(
                "gradient",
                f"step {step}: the gradient's norm is {logs['grad_norm']:.4g}, above "
                f"{LARGEST_NORM:.0f}: lower training.lr, raise training.warmup, or keep "
                "training.clip at 1",
            )
        if "loss" in logs:
            self._look_at_loss(logs["loss"], step)
        if "eval_loss" in logs:
            self._look_at_hold_out(logs["eval_loss"], step)

    def _look_at_loss(self, loss: float, step: int) -> None:
        self._first = loss if self._first is None else self._first
        if not math.isfinite(loss) or loss > 2 * self._first + 1:
            self._say(
                "collapse",
                f"step {step}: the loss is {loss:.2f} after {self._first:.2f} in the beginning: "
                "the run collapses; lower training.lr",
            )

    def _look_at_hold_out(self, loss: float, step: int) -> None:
        self._held.append(loss)
        if len(self._held) > 2 and self._held[-3] < self._held[-2] < self._held[-1]:
            self._say(
                "overfitting",
                f"step {step}: the held-out loss rises ({self._held[-3]:.3f}, "
                f"{self._held[-2]:.3f}, {self._held[-1]:.3f}): it learns by heart; lower "
                "training.epochs, give more data, or set training.keep=best",
            )

    def _say(self, kind: str, message: str) -> None:
        if kind not in self.said:
            self.said[kind] = message
            self._progress.warn(message)


class Best(TrainerCallback):  # type: ignore[misc]
    """Keeps the weights of the lowest held-out loss in a file of the run's directory, so that a
    run that dies finds them again; ends a run that has not become better for `patience` scores."""

    def __init__(self, directory: Path, model: torch.nn.Module, patience: int | None) -> None:
        self._path = directory / BEST
        self._model = model
        self._patience = patience
        self._waited = 0
        self._lowest = math.inf

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Without a checkpoint there is no earlier best; with one, count what was waited."""
        if not state.global_step:
            self._path.unlink(missing_ok=True)
        for entry in state.log_history:
            if "eval_loss" in entry:
                self._waited = 0 if entry["eval_loss"] < self._lowest else self._waited + 1
                self._lowest = min(self._lowest, entry["eval_loss"])

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **rest: Any
    ) -> None:
        """A score of the hold-out is there."""
        loss = metrics["eval_loss"]
        if loss < self._lowest:
            self._waited, self._lowest = 0, loss
            if state.is_world_process_zero:
                self._keep(state.global_step)
        else:
            self._waited += 1
            if self._patience is not None and self._waited >= self._patience:
                control.should_training_stop = True

    def restore(self) -> int | None:
        """Put the best weights into the model; return their step, None where none were kept."""
        if not self._path.exists():
            return None
        with safe_open(self._path, "pt") as file, torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(file.get_tensor(name))
            return int(file.metadata()["step"])

    def _keep(self, step: int) -> None:
        tensors = {name: p.detach().cpu().contiguous() for name, p in self._trained()}
        partial = self._path.with_suffix(".partial")
        save_file(tensors, partial, {"step": str(step)})
        partial.replace(self._path)

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]


class SoftEnd(TrainerCallback):  # type: ignore[misc]
    """After SIGTERM the step that runs is the last, and is kept as a checkpoint."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Save and stop when that was asked."""
        if self.asked and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the block SIGTERM asks; at its end AdzError says how to go on."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: Any) -> None:
            self.asked = True
            # The second time nobody wants to wait.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def check(self, step: int, steps: int) -> None:
        """Raise AdzError when the run was ended before its last step."""
        if self.asked and step < steps:
            raise AdzError(
                f"ended by SIGTERM after step {step} of {steps}: nothing was committed",
                f"--resume goes on from step {step}",
                exit_code=EXIT_TERMINATED,
            )
