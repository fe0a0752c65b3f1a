"""The same inputs and recipe give the same bytes: in any process, by any number of workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .conftest import MakeLora
from .small import declared_pairs

# Merges by every rule in every space it declares; prints each payload's hashes.
SCRIPT = """
import hashlib, json, sys
from pathlib import Path
from adapterhub import specs
from adapterhub.merge.pipeline import merge
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.plugins import load_plugins, open_registry
from contextlib import nullcontext

class Silent:
    def task(self, *_): return nullcontext(self)
    def advance(self, *_, **__): pass
    note = warn = lambda self, message: None

pairs, paths, out, workers = json.loads(sys.argv[1])
found = {}
for rule, space in pairs:
    directory = Path(out) / f"{rule}-{space}"
    recipe = MergeRecipe(adapters=tuple(paths[:2]), rule=rule, space=space, weights=(0.7, 0.4),
                         out=directory, workers=workers, seed=5)
    merge(recipe, open_registry(), Silent())
    found[f"{rule} {space}"] = [
        hashlib.sha256((directory / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
print(json.dumps(found))
"""


def test_no_process_seed_folder_or_number_of_workers_changes_a_byte(
    make_lora: MakeLora, tmp_path: Path, home: Path
) -> None:
    # Names in a list, as PEFT writes sets: the order is the process's hashes'.
    shapes = {f"model.layers.{i}.self_attn.q_proj": (48, 40) for i in range(4)}
    shapes |= {f"model.layers.{i}.mlp.up_proj": (70, 40) for i in range(4)}
    paths = [
        str(make_lora(name, rank=rank, seed=seed, shapes=shapes).path)
        for name, rank, seed in (("a", 4, 1), ("b", 6, 2))
    ]
    pairs = declared_pairs()

    def run(seed: str, workers: int, folder: Path) -> dict[str, list[str]]:
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT,
             json.dumps([pairs, paths, str(folder / "out"), workers])],
            env={**os.environ, "ADZ_HOME": str(home), "PYTHONHASHSEED": seed},
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, list[str]] = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(2) as pool:
        first, second = (
            pool.submit(run, *arguments)
            for arguments in (("1", 1, tmp_path / "one"), ("2", 3, tmp_path / "two"))
        )
    assert len(first.result()) == len(pairs)
    assert first.result() == second.result()
    # The rules are not all the same, or the test would say nothing.
    assert len({weights for _, weights in first.result().values()}) > len(pairs) // 2
