"""W&B, MLflow and Trackio on this machine: what arrives, read back as each of them stores it.

They run where `adapterhub[trackers]` is installed.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapterhub.errors import AdzError
from adapterhub.protocols import Registry
from adapterhub.train import pipeline
from adapterhub.train.pipeline import train

pytestmark = pytest.mark.extras

PlanFor = Callable[..., Any]
STEPS = 3


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing is set, no key is known, and no other machine is reached."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    connect, abroad = socket.socket.connect, []

    def here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            abroad.append(address)
            raise ConnectionRefusedError
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", here)
    yield tmp_path
    assert not abroad


def run(tracker: str, plan_for: PlanFor, registry: Registry, progress: Any, folder: Path) -> Any:
    """Train, reporting to it; the plan, and what the version itself keeps of each step."""
    plan = plan_for(training={"report_to": [tracker], "max_steps": STEPS})
    registry.artifacts(train(plan, registry, progress), folder / "artifacts")
    lines = (folder / "artifacts" / "metrics.jsonl").read_text().splitlines()
    return plan, [entry for entry in map(json.loads, lines) if "loss" in entry]


def check(steps: list[dict[str, Any]], mine: list[dict[str, Any]], prefix: str = "train/") -> None:
    assert len(steps) == len(mine) == STEPS
    for key in ("loss", "learning_rate"):
        assert [s[prefix + key] for s in steps] == pytest.approx([entry[key] for entry in mine])
    assert all(s[f"{prefix}tokens_per_second"] > 0 for s in steps)


def wandb_records(folder: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format, of wandb's own messages."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    # What writes the file has done so when it has ended; the next one begins in its own folder.
    wandb.teardown()
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def test_wandb_offline(
    alone: Path, plan_for: PlanFor, registry: Registry, progress: Any, monkeypatch: Any
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    plan, mine = run("wandb", plan_for, registry, progress, alone)
    records = list(wandb_records(alone))
    steps = [
        {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    check([step for step in steps if "train/loss" in step], mine)
    config = {i.key: json.loads(i.value_json) for r in records for i in r.config.update if i.key}
    assert config["recipe"] == plan.resolved
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]


def test_wandb_without_a_key_is_refused_before_training(
    adz_process: Any, registry: Registry, data_file: Path
) -> None:
    pytest.importorskip("wandb")
    arguments = ("train", "--data", data_file, "-o", "training.report_to=[wandb]")
    result = adz_process(*arguments, timeout=120)
    assert result.code == 1
    assert result.err.strip().count("\n") == 0
    assert "training.report_to names wandb, which has no key (wandb login; or" in result.err


def test_wandb_login_is_a_key(alone: Path, plan_for: PlanFor) -> None:
    pytest.importorskip("wandb")
    (alone / "netrc").write_text("machine api.wandb.ai login user password " + "k" * 40 + "\n")
    (alone / "netrc").chmod(0o600)
    assert plan_for(training={"report_to": ["wandb"]}).recipe.training.report_to == ("wandb",)


def test_mlflow_in_a_file(
    alone: Path, plan_for: PlanFor, registry: Registry, progress: Any, monkeypatch: Any
) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{alone / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(mlflow, "is_tracking_uri_set", lambda: False)
    plan, mine = run("mlflow", plan_for, registry, progress, alone)
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs(["0"])
    assert found.info.status == "FINISHED"
    history = {
        key: [m.value for m in client.get_metric_history(found.info.run_id, key)]
        for key in ("loss", "learning_rate", "tokens_per_second")
    }
    rows = zip(*history.values(), strict=True)
    check([dict(zip(history, row, strict=True)) for row in rows], mine, "")
    recipe = mlflow.artifacts.load_text(f"{found.info.artifact_uri}/recipe.yaml")
    assert yaml.safe_load(recipe) == plan.resolved


def test_trackio_on_this_machine(
    alone: Path, plan_for: PlanFor, registry: Registry, progress: Any, monkeypatch: Any
) -> None:
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    for module in ("trackio.sqlite_storage", "trackio.utils"):
        monkeypatch.setattr(f"{module}.TRACKIO_DIR", alone / "trackio")
    plan, mine = run("trackio", plan_for, registry, progress, alone)
    (found,) = trackio.Api().runs("adapterhub")
    steps = [s for s in SQLiteStorage.get_logs("adapterhub", found.name) if "train/loss" in s]
    check(steps, mine)
    assert found.config["recipe"] == plan.resolved


def test_a_run_that_fails_is_marked_so(
    alone: Path, plan_for: PlanFor, registry: Registry, progress: Any, monkeypatch: Any
) -> None:
    pytest.importorskip("wandb")

    def refuse(*given: Any, **rest: Any) -> None:
        raise AdzError("stopped")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(pipeline.Bar, "on_step_end", refuse)
    plan = plan_for(training={"report_to": ["wandb"]})
    with pytest.raises(AdzError, match="stopped"):
        train(plan, registry, progress)
    codes = [r.exit.exit_code for r in wandb_records(alone) if r.HasField("exit")]
    assert codes == [1]
