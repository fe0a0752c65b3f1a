"""Merges in a process of their own, one after the other: CPU and wall seconds, peak memory.

    python process.py '{"merges": [{"adapters": [...], "rule": ...}, ...]}'

Importing the libraries is not counted, and a small merge before the first warms them up. Peak
memory is the kernel's VmHWM of this process, set back before each merge, imports included;
`baseline_mb` is what the imports alone hold.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from speed.adapters import write_adapter


def memory_mb(field: str) -> float:
    """VmRSS or VmHWM of this process."""
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0]) / 1024


def reset_peak() -> None:
    """VmHWM starts again from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(options: dict[str, Any], out: Path) -> dict[str, Any]:
    """One merge, from its recipe to the written directory."""
    from adapterhub.merge.pipeline import merge
    from adapterhub.merge.recipe import MergeRecipe
    from adapterhub.merge.silent import Silent
    from adapterhub.plugins import open_registry

    recipe = MergeRecipe.model_validate({**options, "out": out})
    registry = open_registry()
    reset_peak()
    baseline, cpu, wall = memory_mb("VmRSS"), time.process_time(), time.perf_counter()
    result = merge(recipe, registry, Silent())
    return {
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
        "baseline_mb": baseline,
        "peak_mb": memory_mb("VmHWM"),
        "reported_error": result.relative_error,
    }


def main() -> None:
    """Print the figures of every merge as a line of JSON. A merge with `out` is kept there."""
    given = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="adz-benchmark-") as folder:
        small = [
            str(write_adapter(Path(folder) / name, {"q_proj": (64, 64)}, 1, 2, seed=seed))
            for seed, name in enumerate("ab")
        ]
        for index, options in enumerate(given["merges"]):
            warm = {**options, "adapters": small, "rank": "max", "weights": None}
            measure({**warm, "out": None}, Path(folder) / f"warm{index}")
            kept = options.pop("out", None)
            out = Path(kept or Path(folder) / str(index))
            print(json.dumps(measure(options, out)), flush=True)
            if kept is None:
                shutil.rmtree(out)


if __name__ == "__main__":
    main()
