"""Trackers: TensorBoard's own reader finds what was logged; what is missing is one sentence."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.protocols import Registry
from adapterhub.train.pipeline import train
from adapterhub.train.reports import check_installed, reported

PlanFor = Callable[..., Any]


def logged(registry: Registry, version: Any, folder: Path) -> list[dict[str, Any]]:
    registry.artifacts(version, folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "loss" in entry]


def test_tensorboard_reads_each_run_of_a_process_in_a_place_of_its_own(
    plan_for: PlanFor, registry: Registry, progress: Any, home: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in (3, 5):
        options = {"report_to": ["tensorboard"], "max_steps": steps}
        version = train(plan_for(training=options), registry, progress)
        mine = logged(registry, version, tmp_path / str(steps))
        newest = max((home / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        read = EventAccumulator(str(newest)).Reload()
        for name, key in (("train/loss", "loss"), ("train/learning_rate", "learning_rate")):
            theirs = [(event.step, event.value) for event in read.Scalars(name)]
            assert [step for step, _ in theirs] == list(range(1, steps + 1))
            assert [v for _, v in theirs] == pytest.approx([entry[key] for entry in mine])
    assert len(list((home / "tensorboard").iterdir())) == 2


def test_a_tracker_that_is_missing_is_one_sentence(
    adz: Any, registry: Registry, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else kept(name)
    )
    arguments = ("train", "--data", data_file, "-o", "training.report_to=[wandb]", "--dry-run")
    result = adz(*arguments)
    assert result.code == 1
    assert (
        "training.report_to names wandb, which is not installed "
        "(pip install 'adapterhub[trackers]')" in result.err
    )


def test_a_folder_of_its_name_is_not_the_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wandb leaves one where it runs."""
    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AdzError, match="no_such_tracker, which is not installed"):
        check_installed(["no_such_tracker"])


def test_a_tracker_that_does_not_start_is_one_sentence() -> None:
    class WandbCallback:
        def setup(self, *given: Any) -> None:
            raise RuntimeError("No API key configured.\nUse `wandb login`.")

    trainer = SimpleNamespace(
        args=None, state=None, model=None,
        callback_handler=SimpleNamespace(callbacks=[WandbCallback()]),
    )  # fmt: skip
    training = SimpleNamespace(report_to=("wandb",))
    run: Any = SimpleNamespace(recipe=SimpleNamespace(training=training))
    message = "a tracker of training.report_to did not start: No API key configured."
    with pytest.raises(AdzError, match=message), reported(trainer, run):
        pass
