"""Does random work under the shim and writes every change of the disk down.

Run by `shim.run` as `record.py JOBS`: a JSON file with a list of jobs, each `home` (an empty
folder), `out` (the record), `payloads`, `seed`, `kinds` (what to do, or null for `steps` random
things), and `without`: the place of a call of `disk.sync` that is left out, as
`[file name, line]`, or null.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from shim import Shim
from workload import Workload, manifest, snapshot

from adapterhub_registry import disk
from adapterhub_registry.store import LocalRegistry


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    warm_up(Path(jobs[0]["payloads"]))
    for job in jobs:
        child = os.fork()
        if child == 0:
            try:
                record(job)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, job


def warm_up(payloads: Path) -> None:
    """Import everything that a commit imports."""
    with tempfile.TemporaryDirectory() as folder:
        LocalRegistry(Path(folder)).commit(manifest("sql"), next(payloads.iterdir()))


def record(job: dict[str, Any]) -> None:
    shim, home = Shim(), Path(job["home"]) / "home"
    if job["without"]:
        leave_out(shim, *job["without"])
    shim.watch(Path(job["home"]))
    shim.record(Path(job["out"]))
    registry = LocalRegistry(home)
    work = Workload(registry, Path(job["payloads"]), job["seed"])
    shim.note(json.dumps(["open", snapshot(registry)]))
    for kind in job["kinds"] or [None] * job["steps"]:
        done = work.run(kind) if kind else work.step()
        shim.note(json.dumps([done, snapshot(registry)]))
    shim.record(None)


def leave_out(shim: Shim, file_name: str, line: int) -> None:
    """Let one call of `disk.sync` do nothing."""
    sync = disk.sync

    def run(path: Path) -> None:
        caller = sys._getframe(1)
        if (Path(caller.f_code.co_filename).name, caller.f_lineno) == (file_name, line):
            shim.note(json.dumps(["left out", None]))
        else:
            sync(path)

    disk.sync = run


if __name__ == "__main__":
    main()
