"""Peak memory, measured in a process of its own: one module at a time, whatever their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

M, N = 2048, 4096
MODULE_MB = M * N * 4 / 2**20

SCRIPT = """
import json, sys
from pathlib import Path
from adapterhub.cli.output import TerminalProgress
from adapterhub.merge import pipeline
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.plugins import open_registry

def memory(field):
    # VmHWM is this process's own; ru_maxrss would count the test's process too.
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0]) / 1024

given = json.loads(sys.argv[1])
if not given.pop("advice"):
    pipeline._advised = lambda prepared, result: result
merge = pipeline.merge
warm = {**given, "adapters": given["adapters"][:2], "out": given["out"] + "-warm"}
recipe = MergeRecipe.model_validate({**given, "adapters": given["adapters"][2:]})
registry, progress = open_registry(), TerminalProgress()
merge(MergeRecipe.model_validate(warm), registry, progress)
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
merge(recipe, registry, progress)
print(json.dumps(memory("VmHWM") - before))
"""


def grown(
    home: Path, adapters: list[Path], out: Path, rule: str, space: str, *, advice: bool
) -> float:
    """Peak MB of the merge of the last two adapters, above what the process has after it has
    merged the first two, which are small."""
    recipe = {
        "adapters": [str(a) for a in adapters], "out": str(out), "rule": rule, "space": space,
        "workers": 1, "advice": advice,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(recipe)],
        env={**os.environ, "ADZ_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, text=True, check=True, timeout=300,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("rule", "space", "advice", "bound"),
    [
        ("linear", "core", True, 0.5),
        ("ties", "knots", True, 0.5),
        ("ties", "dense", False, 1.5),
        ("ties", "dense", True, 3.5),
    ],
)
def test_memory_is_bounded_by_one_module(
    rule: str, space: str, advice: bool, bound: float, make_lora: Any, home: Path, tmp_path: Path
) -> None:
    """In units of one module's dense update: core and knots never build it, dense builds one and
    works on blocks of it. The advice after a dense merge tries rank 256, whose sketch is large
    beside a module as small as this one. Six at once would take six units and more, four more
    modules four. Inputs are read, not mapped: their pages do not count."""
    pairs = {}
    for count in (0, 2, 6):
        shapes = {f"layers.{i}.up_proj": (M, N) for i in range(count)} or {"up_proj": (64, 64)}
        pairs[count] = [
            make_lora(f"{name}{count}", seed=s, shapes=shapes).path for s, name in enumerate("ab")
        ]
    few = grown(home, [*pairs[0], *pairs[2]], tmp_path / "few", rule, space, advice=advice)
    many = grown(home, [*pairs[0], *pairs[6]], tmp_path / "many", rule, space, advice=advice)
    assert many < bound * MODULE_MB
    assert many - few < MODULE_MB
