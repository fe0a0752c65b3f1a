"""Our registry, MLflow's and the Hugging Face cache, with the same adapters, one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from registry_speed import adapters
from registry_speed.timing import median

FOLDER = Path(__file__).resolve().parent
MLFLOW = "mlflow==3.17.2"
OPERATIONS = {
    "commit": "store an adapter as a new version",
    "alias": "point an alias at it",
    "resolve": "alias -> version",
    "first_directory": "alias -> a directory to open, first time",
    "directory": "alias -> a directory to open, again",
    "list": "list 50",
}
Figures = dict[str, Any]


def make_environment(directory: Path) -> Path:
    """The Python of a virtual environment in `directory` with MLflow, made when it is not there."""
    python = directory / "bin" / "python"
    if not python.exists():
        print(f"installing {MLFLOW} below {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", MLFLOW], check=True)
    return python


def compare(directory: Path, mlflow: Path, count: int, rounds: int) -> dict[str, Figures]:
    """Seconds of each operation by side: `{side: {"version": ..., "commit": [...], ...}}`.

    mlflow: the Python that has it. A side that ends with `, synced` calls fsync on what it wrote;
    neither peer does that.
    """
    paths, base = adapters.small(directory, count)
    given = {"adapters": list(map(str, paths)), "rounds": rounds}
    sides: list[tuple[str, Path, str, Figures]] = [
        ("adapterhub", Path(sys.executable), "adapterhub", {"base": base.model_dump(mode="json")}),
        ("HF cache", Path(sys.executable), "hub_cache", {"sync": False}),
        ("HF cache, synced", Path(sys.executable), "hub_cache", {"sync": True}),
        ("MLflow", mlflow, "mlflow", {"sync": False}),
        ("MLflow, synced", mlflow, "mlflow", {"sync": True}),
    ]
    found = {}
    for index, (label, python, script, options) in enumerate(sides):
        options = {**given, **options, "folder": str(directory / f"side-{index}")}
        found[label] = _run(python, script, options)
    return found


def ratios(found: dict[str, Figures]) -> dict[str, dict[str, float]]:
    """How many times our median each peer's is: `{side: {operation: ratio}}`."""
    ours = found["adapterhub"]
    return {
        side: {
            name: median(figures[name]) / median(ours[name])
            for name in OPERATIONS
            if name in figures
        }
        for side, figures in found.items()
        if side != "adapterhub"
    }


def _run(python: Path, script: str, options: Figures) -> Figures:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, FOLDER / f"side_{script}.py", json.dumps(options)],
        env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=1800,
    )  # fmt: skip
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found
