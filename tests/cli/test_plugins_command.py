"""adz plugins"""

from __future__ import annotations

import json
import os
from pathlib import Path

DISTS = Path(__file__).parent.parent / "fixtures" / "dists"


def test_json_says_what_came_from_where(adz_process):
    path = os.pathsep.join(str(DISTS / name) for name in ("healthy", "import_error"))
    done = adz_process("plugins", "--json", env={"PYTHONPATH": path})
    assert done.code == 0
    records = {r["name"]: r for r in json.loads(done.out)}
    assert records["adz_healthy"] == {
        "name": "adz_healthy", "module": "adz_healthy", "distribution": "adz-healthy",
        "version": "1.0", "status": "loaded", "problem": "",
        "components": {"metric": ["length"], "command": ["hello"]},
    }  # fmt: skip
    assert records["adz_import_error"]["status"] == "failed"
    assert "a_module_that_nobody_has" in records["adz_import_error"]["problem"]
    assert done.err.count("\n") == 1
    assert {r["distribution"] for r in records.values()} >= {"adapterhub", "adz-healthy"}


def test_table_has_a_line_for_each(adz, adz_process):
    records = json.loads(adz("plugins", "--json").out)
    lines = adz("plugins").out.splitlines()
    assert len(lines) == len(records) + 1
    registry = next(line for line in lines if line.startswith("registry "))
    assert "registry: local" in registry
