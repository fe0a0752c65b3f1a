"""kill -9 at any moment of a merge, in the middle of a write too: a whole version or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("crash_driver.py")
MOMENTS = 10
FILES = ["adapter_config.json", "adapter_model.safetensors"]


def test_a_killed_merge_leaves_nothing(
    adz: Any, commit_adapter: Any, home: Path, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        commit_adapter(name, seed=seed)
    folder = tmp_path / "merged"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), str(MOMENTS), "a", "b"],
        env={**os.environ, "ADZ_HOME": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for kind, key in (("version", "versions"), ("out", "directories")):
        rounds = results[kind]
        assert all(entry["killed"] for entry in rounds)
        assert all(entry["findings"] == [] for entry in rounds)
        left = [name for name in rounds[-1][key] if name.startswith(kind)]
        # What came before the commit left nothing. What came after it left all.
        names = [entry["name"] + ("@1" if kind == "version" else "") for entry in rounds]
        assert left == names[len(names) - len(left) :]
        assert len(left) < MOMENTS - 3
        assert all(rounds[-1][key][name] == FILES for name in left)

    # The next merge works, and what the killed ones staged is swept.
    assert adz("merge", "a", "b", "--name", "after").code == 0
    for staged in (*(home / "staging").iterdir(), *folder.glob(".*")):
        os.utime(staged, (0, 0))
    assert adz("merge", "a", "b", "--name", "after").code == 0
    assert adz("merge", "a", "b", "--out", folder / "after").code == 0
    assert list((home / "staging").iterdir()) == []
    assert list(folder.glob(".after*")) == []
