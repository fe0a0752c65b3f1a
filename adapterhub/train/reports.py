"""Where a run's metrics go besides its version: TensorBoard, Trackio, W&B, MLflow.

Each keeps its own settings: TENSORBOARD_LOGGING_DIR, TRACKIO_DIR, WANDB_MODE, MLFLOW_TRACKING_URI
and so on. What they would send to their makers of their own accord stays here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapterhub.errors import AdzError
from adapterhub.home import adz_home
from adapterhub.train.scale import rank

if TYPE_CHECKING:
    from adapterhub.train.run import Run

PROJECT = "adapterhub"
"""What runs are filed under where a tracker groups them and nothing else is set."""

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
_WANDB = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL")
"""Whoever has set one of them has decided where W&B runs go."""
_CALLBACKS = {
    "WandbCallback": "wandb", "TrackioCallback": "trackio", "MLflowCallback": "mlflow",
}  # fmt: skip


def check_installed(names: Sequence[str]) -> None:
    """Raise AdzError for a tracker that is not installed, or that would ask for a key."""
    for name in names:
        found = importlib.util.find_spec(name)
        # A folder of this name, in which a tracker has left its files, is no package.
        if found is None or found.origin is None:
            raise AdzError(
                f"training.report_to names {name}, which is not installed",
                "pip install 'adapterhub[trackers]'",
            )
    if "wandb" in names and not any(map(os.environ.get, _WANDB)) and not _logged_in():
        raise AdzError(
            "training.report_to names wandb, which has no key",
            "wandb login; or WANDB_MODE=offline keeps the run on this machine",
        )


def settings(run: Run) -> dict[str, Any]:
    """Keyword arguments for `transformers.TrainingArguments`."""
    names = [name for name in run.recipe.training.report_to if name != "tensorboard"]
    for name, value in (_QUIET | {"WANDB_PROJECT": PROJECT}).items():
        os.environ.setdefault(name, value)
    return {"report_to": names or "none", "run_name": run.directory.name, "project": PROJECT}


@contextmanager
def reported(trainer: Any, run: Run) -> Iterator[None]:
    """Within the block the metrics of `trainer` are reported as the recipe says, the recipe with
    them.

    Raises AdzError where a tracker does not start.
    """
    names = run.recipe.training.report_to
    if not names:
        yield
        return
    callbacks = trainer.callback_handler.callbacks
    callbacks.insert(0, _speed(trainer))
    if "tensorboard" in names:
        _add_tensorboard(trainer, run)
    # The others start with the first step, and what they lack would come as a traceback.
    for callback in callbacks:
        if type(callback).__name__ in _CALLBACKS:
            _start(callback, trainer, run)
    failed = True
    try:
        yield
        failed = False
    finally:
        # The next run of this process would else write into this one.
        if rank() == 0:
            _finish(names, failed=failed)


def _logged_in() -> bool:
    """Whether `wandb login` has left a key."""
    import netrc

    try:
        hosts = netrc.netrc(os.environ.get("NETRC") or Path("~/.netrc").expanduser()).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


def _speed(trainer: Any) -> Any:
    """Adds tokens a second to what every tracker is told of a step."""
    from transformers import TrainerCallback

    class Speed(TrainerCallback):  # type: ignore[misc]
        begun = 0.0

        def on_train_begin(self, *given: Any, **rest: Any) -> None:
            self.begun = time.monotonic()

        def on_log(self, *given: Any, logs: Any = None, **rest: Any) -> None:
            if logs and "loss" in logs:
                seconds = max(time.monotonic() - self.begun, 1e-9)
                logs["tokens_per_second"] = trainer.seen_tokens / seconds

    return Speed()


def _start(callback: Any, trainer: Any, run: Run) -> None:
    name = _CALLBACKS[type(callback).__name__]
    try:
        # Results of adz go to stdout, and what a tracker says is none.
        with redirect_stdout(sys.stderr):
            callback.setup(trainer.args, trainer.state, trainer.model)
            if rank() == 0:
                _send_recipe(name, run.plan.resolved)
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise AdzError(
            f"a tracker of training.report_to did not start: {lines[0]}",
            "see its own documentation, or leave it out",
        ) from error


def _send_recipe(name: str, recipe: dict[str, Any]) -> None:
    library: Any = importlib.import_module(name)
    if name == "mlflow":
        library.log_dict(recipe, "recipe.yaml")
    else:
        library.config.update({"recipe": recipe})


def _finish(names: Sequence[str], *, failed: bool) -> None:
    with redirect_stdout(sys.stderr):
        if "wandb" in names:
            importlib.import_module("wandb").finish(exit_code=int(failed))
        if "mlflow" in names:
            importlib.import_module("mlflow").end_run("FAILED" if failed else "FINISHED")
        if "trackio" in names:
            trackio: Any = importlib.import_module("trackio")
            if trackio.context_vars.current_run.get() is not None:
                trackio.finish()


def _add_tensorboard(trainer: Any, run: Run) -> None:
    """Each run in a directory of its own, which stays when that of the run is gone."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    if rank() == 0:
        logs = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", adz_home() / "tensorboard"))
        writer = SummaryWriter(str(logs / run.directory.name))
        recipe = yaml.safe_dump(run.plan.resolved, sort_keys=False)
        writer.add_text("recipe", f"```yaml\n{recipe}```")
        trainer.add_callback(TensorBoardCallback(writer))
