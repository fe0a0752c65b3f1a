"""Taking over a folder of adapters with `adz adopt`, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from speed.adapters import SMOLLM, write_adapter

from registry_speed import adapters


def measure(directory: Path, count: int) -> dict[str, Any]:
    """Wall seconds to survey and to import `count` adapters of 1.2 MiB, start included."""
    folder = directory / "outputs"
    for index in range(count):
        write_adapter(folder / f"run-{index}", SMOLLM, 30, 1, seed=1000 + index)
    base = adapters.write_base(directory / "adopt-base", "smollm2", SMOLLM, 30)
    (Path(base.path) / "tokenizer.json").write_text("{}")
    environment = {**os.environ, "ADZ_HOME": str(directory / "home-adopt"), "OMP_NUM_THREADS": "1"}

    def adz(*arguments: str) -> tuple[float, Any]:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "adapterhub.cli", *arguments, "--json"],
            env=environment, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - start, json.loads(done.stdout)

    adz("base", "add", "smollm2", base.path)
    surveyed, _ = adz("adopt", str(folder), "--dry-run")
    imported, result = adz("adopt", str(folder), "--yes")
    return {"survey": surveyed, "import": imported, "adopted": len(result["adopted"])}
