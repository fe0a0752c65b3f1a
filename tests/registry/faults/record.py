"""Does random work under the shim and writes every change of the disk down.

Run by `shim.run` as `record.py JOBS`: a JSON file with a list of jobs, each `folder` (an empty
one), `out` (the record), `payloads`, `seed`, `kinds` (what to do, or null for `steps` random
things), and `without`: the place of a call that syncs and is left out, as `[file name, line]`, or
null.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crashes import LEFT_OUT
from exchanging import ExchangingWorkload
from shim import Shim

from adapterhub_registry import disk, storing
from adapterhub_remotes import local_files


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    warm_up(Path(jobs[0]["payloads"]))
    for job in jobs:
        child = os.fork()
        if child == 0:
            try:
                record(job)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, job


def warm_up(payloads: Path) -> None:
    """Import everything that the work imports."""
    with tempfile.TemporaryDirectory() as folder:
        work = ExchangingWorkload(Path(folder), payloads, 0)
        for kind in ("commit", "push", "pull"):
            work.run(kind)


def record(job: dict[str, Any]) -> None:
    shim, folder = Shim(), Path(job["folder"])
    if job["without"]:
        leave_out(shim, *job["without"])
    shim.watch(folder)
    shim.record(Path(job["out"]))
    work = ExchangingWorkload(folder, Path(job["payloads"]), job["seed"])
    shim.note(json.dumps(["open", work.snapshot()]))
    work.on_part = lambda kind: shim.note(json.dumps([kind, work.snapshot()]))
    for kind in job["kinds"] or [None] * job["steps"]:
        if kind:
            work.run(kind)
        else:
            kind = work.step()
        work.on_part(kind)
    shim.record(None)


def leave_out(shim: Shim, file_name: str, line: int) -> None:
    """Let one call of a function that syncs do nothing."""

    def without(function: Callable[[Any], None]) -> Callable[[Any], None]:
        def run(what: Any) -> None:
            caller = sys._getframe(1)
            if (Path(caller.f_code.co_filename).name, caller.f_lineno) == (file_name, line):
                shim.note(json.dumps([LEFT_OUT, None]))
            else:
                function(what)

        return run

    disk.sync = without(disk.sync)
    storing._Staged.sync = without(storing._Staged.sync)
    local_files._sync = without(local_files._sync)
    os.fsync = without(os.fsync)


if __name__ == "__main__":
    main()
