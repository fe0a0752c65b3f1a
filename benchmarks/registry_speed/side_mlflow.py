"""MLflow's side, run by the Python of a virtual environment of its own.

    python side_mlflow.py '{"adapters": [DIR, ...], "folder": DIR, "rounds": N, "sync": false}'

A commit is what stores an adapter's files and makes a version of them: `create_registered_model`,
`create_run`, `log_artifacts`, `create_model_version`, with SQLite behind and a local folder for
artifacts. Prints seconds as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
logging.disable(logging.WARNING)

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from registry_speed.timing import after_sync, seconds  # noqa: E402

PAGE = 50


def main() -> None:
    """Measure one side and print it."""
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    folder.mkdir(parents=True)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    mlflow.set_tracking_uri(uri)
    experiment = client.create_experiment("adapters", artifact_location=str(folder / "artifacts"))
    found: dict[str, Any] = {"version": mlflow.__version__}
    adapters = [Path(path) for path in given["adapters"]]
    # The first makes connections and caches.
    _commit(client, experiment, "warm", adapters[0], sync=False)
    found["commit"] = [
        after_sync(lambda n=n, p=p: _commit(client, experiment, n, p, sync=given["sync"]))
        for n, p in _named(adapters)
    ]
    names = [name for name, _ in _named(adapters)]
    found["alias"] = [
        seconds(lambda n=n: client.set_registered_model_alias(n, "prod", "1")) for n in names
    ]
    rounds = range(given["rounds"])
    found["resolve"] = [
        seconds(lambda n=n: client.get_model_version_by_alias(n, "prod"))
        for _ in rounds for n in names
    ]  # fmt: skip
    found["directory"] = [seconds(lambda n=n: _directory(client, n)) for n in names]
    found["list"] = [
        seconds(lambda: client.search_registered_models(max_results=PAGE)) for _ in rounds
    ]
    print(json.dumps(found))


def _commit(client: MlflowClient, experiment: str, name: str, adapter: Path, *, sync: bool) -> None:
    client.create_registered_model(name)
    run = client.create_run(experiment)
    client.log_artifacts(run.info.run_id, str(adapter), "adapter")
    if sync:
        _sync(Path(urlparse(run.info.artifact_uri).path, "adapter"))
    client.create_model_version(name, f"{run.info.artifact_uri}/adapter", run.info.run_id)


def _directory(client: MlflowClient, name: str) -> None:
    version = client.get_model_version_by_alias(name, "prod")
    path = mlflow.artifacts.download_artifacts(artifact_uri=version.source)
    assert Path(path, "adapter_model.safetensors").is_file()


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder, folder.parent]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _named(adapters: list[Path]) -> list[tuple[str, Path]]:
    return [(f"adapter-{index}", path) for index, path in enumerate(adapters)]


if __name__ == "__main__":
    main()
