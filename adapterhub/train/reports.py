"""Where a run's metrics go besides its version: TensorBoard, Trackio, W&B, MLflow.

Each keeps its own settings: TENSORBOARD_LOGGING_DIR, WANDB_MODE, MLFLOW_TRACKING_URI and so on.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.errors import AdzError
from adapterhub.home import adz_home
from adapterhub.train.scale import rank

if TYPE_CHECKING:
    from adapterhub.train.run import Run

PROJECT = "adapterhub"
"""What runs are filed under where a tracker groups them and nothing else is set."""


def check_installed(names: Sequence[str]) -> None:
    """Raise AdzError for a tracker that is not installed."""
    for name in names:
        found = importlib.util.find_spec(name)
        # A folder of this name, in which a tracker has left its files, is no package.
        if found is None or found.origin is None:
            raise AdzError(
                f"training.report_to names {name}, which is not installed", f"pip install {name}"
            )


def settings(run: Run) -> dict[str, Any]:
    """Keyword arguments for `transformers.TrainingArguments`."""
    names = [name for name in run.recipe.training.report_to if name != "tensorboard"]
    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    return {"report_to": names or "none", "run_name": run.directory.name, "project": PROJECT}


@contextmanager
def reported(trainer: Any, run: Run) -> Iterator[None]:
    """Within the block the metrics of `trainer` are reported as the recipe says.

    Raises AdzError where a tracker does not start.
    """
    names = run.recipe.training.report_to
    if "tensorboard" in names:
        _add_tensorboard(trainer, run)
    for callback in trainer.callback_handler.callbacks:
        # The others start with the first step, and what they lack would come as a traceback.
        if type(callback).__name__ in ("WandbCallback", "TrackioCallback", "MLflowCallback"):
            try:
                callback.setup(trainer.args, trainer.state, trainer.model)
            except Exception as error:
                lines = str(error).splitlines() or [type(error).__name__]
                raise AdzError(
                    f"a tracker of training.report_to did not start: {lines[0]}",
                    "see its own documentation, or leave it out",
                ) from error
    try:
        yield
    finally:
        # The next run of this process would else write into this one.
        if "wandb" in names and rank() == 0:
            importlib.import_module("wandb").finish()


def _add_tensorboard(trainer: Any, run: Run) -> None:
    """Each run in a directory of its own, which stays when that of the run is gone."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    if rank() == 0:
        logs = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", adz_home() / "tensorboard"))
        writer = SummaryWriter(str(logs / run.directory.name))
        trainer.add_callback(TensorBoardCallback(writer))
