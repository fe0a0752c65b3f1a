"""Alerts, early stopping, the best weights, SIGTERM and SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from adapterhub.errors import AdzError
from adapterhub.protocols import Registry
from adapterhub.train.directory import run_directory
from adapterhub.train.pipeline import train
from adapterhub.train.watch import Alerts

PlanFor = Callable[..., Any]


def see(alerts: Alerts, *logs: dict[str, float]) -> None:
    for step, entry in enumerate(logs, 1):
        alerts.on_log(None, SimpleNamespace(global_step=step), None, logs=entry)


def test_alerts_name_the_remedy_and_are_said_once(progress: Any) -> None:
    alerts = Alerts(progress)
    see(alerts, {"loss": 2.0, "grad_norm": 9.0}, {"loss": 2.1, "grad_norm": 0.5})
    see(alerts, {"eval_loss": 1.0}, {"eval_loss": 0.9}, {"eval_loss": 1.0})
    assert progress.warnings == []
    see(alerts, {"eval_loss": 1.1}, {"eval_loss": 1.2})
    see(alerts, {"loss": 1.0, "grad_norm": 12.0}, {"loss": 1.0, "grad_norm": 50.0})
    see(alerts, {"loss": 6.0}, {"loss": float("nan")})
    assert [w.count("training.") > 0 for w in progress.warnings] == [True] * 3
    assert "training.keep=best" in progress.warnings[0]
    assert "norm is 12" in progress.warnings[1]
    assert "training.lr" in progress.warnings[2]


def test_a_run_that_collapses_says_so_and_keeps_it(
    plan_for: PlanFor, registry: Registry, progress: Any
) -> None:
    with pytest.raises(AdzError, match="not finite"):
        train(plan_for(training={"lr": 1e30, "clip": 0, "max_steps": 6}), registry, progress)
    assert any("collapses; lower training.lr" in warning for warning in progress.warnings)


def test_the_best_weights_are_kept_and_a_hopeless_run_ends_early(
    plan_for: PlanFor, registry: Registry, progress: Any
) -> None:
    options = {
        "max_steps": 40, "eval_every": 1, "lr": 0.3, "schedule": "constant", "warmup": 0.0,
        "patience": 3, "keep": "best",
    }  # fmt: skip
    metrics = train(plan_for(training=options), registry, progress).manifest.metrics
    assert metrics["steps"] < 40
    assert metrics["kept_step"] == metrics["steps"] - 3
    last = train(plan_for(training=options | {"keep": "last"}), registry, progress)
    assert metrics["holdout_loss"] < last.manifest.metrics["holdout_loss"]


def test_keeping_the_best_needs_scores(plan_for: PlanFor) -> None:
    with pytest.raises(ValueError, match="need eval_every"):
        plan_for(training={"keep": "best"})


@pytest.mark.parametrize("schedule", ["linear", "cosine", "cosine-restarts", "constant"])
def test_schedules_go_their_way(
    schedule: str, plan_for: PlanFor, registry: Registry, progress: Any, tmp_path: Path
) -> None:
    import json

    options = {"schedule": schedule, "max_steps": 9, "warmup": 0.0, "restarts": 3, "lr": 1e-2}
    version = train(plan_for(training=options), registry, progress)
    registry.artifacts(version, tmp_path / "kept")
    lines = (tmp_path / "kept" / "metrics.jsonl").read_text().splitlines()
    rates = [e["learning_rate"] for e in map(json.loads, lines) if "learning_rate" in e]
    rises = [i for i in range(1, len(rates)) if rates[i] > rates[i - 1]]
    assert max(rates) == pytest.approx(1e-2, rel=0.2)
    assert len(rises) == (2 if schedule == "cosine-restarts" else 0)
    assert (rates[-1] == rates[0]) == (schedule == "constant")


def recipe_file(plan: Any, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(plan.resolved), encoding="utf-8")
    return path


def killed(plan: Any, folder: Path, how: signal.Signals) -> tuple[int, str]:
    """Train in another process, and kill it behind its second checkpoint; its exit code, and what
    it said."""
    command = [sys.executable, "-m", "adapterhub.cli", "train", "-c", recipe_file(plan, folder)]
    directory = run_directory([plan])
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not (directory / "checkpoint-6" / "complete").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, how)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_a_process_that_is_killed_resumes_and_ends_as_an_unbroken_run(
    plan_for: PlanFor, registry: Registry, progress: Any, tmp_path: Path
) -> None:
    plan = plan_for(
        training={"max_steps": 60, "save_every": 3, "batch_size": 4, "input_moments": 0},
        method={"name": "lora", "r": 2, "dropout": 0.1},
    )
    code, _ = killed(plan, tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert registry.versions() == []
    after_kill = train(plan, registry, progress, resume=True)
    code, errors = killed(plan, tmp_path, signal.SIGTERM)
    assert code == 143
    assert "--resume goes on from step" in errors
    assert len(registry.versions()) == 1
    after_term = train(plan, registry, progress, resume=True)
    unbroken = train(plan, registry, progress)
    for resumed in (after_kill, after_term):
        assert resumed.manifest.metrics["resumed"] is True
        assert resumed.manifest.payload == unbroken.manifest.payload
