"""Which cluster `--ray` uses; what Ray would be told is looked at, and none is started."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.protocols import ServeSettings
from adapterhub.train.ray_train import run_on_ray


class Notes:
    """A `Progress` that keeps its notes; a task of it may be anything."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def task(self, description: str, total: float | None) -> Any:
        return nullcontext()


def serve_on_ray(progress: Notes) -> None:
    from adapterhub_ray.engine import RayEngine

    RayEngine().serve(ServeSettings("tiny", replicas=2), progress)  # type: ignore[arg-type]


def train_on_ray(progress: Notes) -> None:
    run_on_ray(["-m", "nothing"], 2, Path("/nowhere"), progress)  # type: ignore[arg-type]


@pytest.mark.parametrize("use", [serve_on_ray, train_on_ray])
@pytest.mark.parametrize(
    ("address", "told"),
    [(None, "local"), ("", "local"), ("local", "local"), ("auto", "auto"), ("head:6379",) * 2],
)
def test_only_a_cluster_that_is_named_is_joined(
    use: Any, address: str | None, told: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    given: dict[str, Any] = {}

    def init(**options: Any) -> None:
        given.update(options)
        raise RuntimeError("enough")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    progress = Notes()
    with pytest.raises(AdzError, match="did not start: enough"):
        use(progress)
    assert given["address"] == told
    assert given["runtime_env"]["env_vars"]["ADZ_HOME"] == str(home)
    # Ray refuses to be told the cores of a cluster that it joins.
    assert ("num_cpus" in given) == (told == "local")
    joined = [f"joining the Ray cluster at {told}, which RAY_ADDRESS names"]
    assert progress.notes == ([] if told == "local" else joined)


@pytest.mark.parametrize(("address", "ended"), [(None, True), ("head:6379", False)])
def test_serve_of_a_joined_cluster_is_left_running(
    address: str | None, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from adapterhub_ray import engine

    calls: list[str] = []
    called = SimpleNamespace(
        delete=lambda name: calls.append(f"delete {name}"),
        shutdown=lambda: calls.append("serve"),
    )
    monkeypatch.setattr(engine, "serve", called)
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(engine.ray, "shutdown", lambda: calls.append("ray"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    engine._stop()
    assert calls == ["delete adapterhub", *["serve"] * ended, "ray"]
