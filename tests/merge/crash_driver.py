"""A program: merges again and again, and each time SIGKILL comes at a later call.

crash_driver.py FOLDER MOMENTS ADAPTER... prints JSON: for each moment whether the merge was
killed, and what is there then. FOLDER, empty, is for the merges into directories; all others go
into the registry. The calls that count are those that touch files or the registry's index, in
any thread; of a `pwrite` the first half is written.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CALLS = {
    "close", "commit", "execute", "executemany", "executescript", "fsync", "ftruncate", "link",
    "mkdir", "open", "rename", "replace", "rmdir", "truncate", "unlink", "write",
}  # fmt: skip


class Countdown:
    """Kills the process at its call number `moment` from the first folder on; 0 is never."""

    def __init__(self, moment: int) -> None:
        self.count = 0
        self._begun = False
        self._moment = moment
        self._lock = threading.Lock()
        self._pwrite = os.pwrite

    def start(self) -> None:
        os.pwrite = self._write_half  # type: ignore[assignment]
        threading.setprofile(self._called)
        sys.setprofile(self._called)

    def _called(self, frame: object, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in CALLS:
            return
        # Nothing is written before the first folder is made.
        self._begun = self._begun or called.__name__ == "mkdir"
        if self._begun and self._is_due():
            os.kill(os.getpid(), signal.SIGKILL)

    def _write_half(self, descriptor: int, data: memoryview, offset: int) -> int:
        if self._is_due():
            self._pwrite(descriptor, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return self._pwrite(descriptor, data, offset)

    def _is_due(self) -> bool:
        with self._lock:
            self.count += 1
            return self.count == self._moment


class Silence:
    """A `protocols.Progress`."""

    @contextmanager
    def task(self, description: str, total: float | None):  # type: ignore[no-untyped-def]
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        pass

    def note(self, message: str) -> None:
        pass

    warn = note


def merge(adapters: list[str], options: dict[str, Any], moment: int) -> int:
    """The number of calls that were counted."""
    from adapterhub.merge.pipeline import merge as run
    from adapterhub.merge.recipe import MergeRecipe
    from adapterhub.plugins import open_registry

    recipe = MergeRecipe.model_validate(
        {"adapters": adapters, "rule": "ties", "space": "dense", "workers": 2, **options}
    )
    countdown = Countdown(moment)
    countdown.start()
    run(recipe, open_registry(), Silence())
    sys.setprofile(None)
    return countdown.count


def forked(work: Callable[[], object]) -> Any:
    """What `work` returns in a process of its own; None where that was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens, the child ends here; without a result the parent's assertion fails.
        try:
            os.close(reader)
            os.write(writer, json.dumps(work()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert status == 0, "the merge failed by itself"
    return json.loads(text)


def what_is_there(folder: Path) -> dict[str, Any]:
    """The versions that the registry shows, what it finds wrong, and the directories' files."""
    from adapterhub.plugins import open_registry

    registry = open_registry()
    found = {
        version.reference: sorted(path.name for path in registry.path(version).iterdir())
        for version in registry.versions()
    }
    findings = [f"{finding.subject}: {finding.problem}" for finding in registry.check()]
    directories = {
        path.name: sorted(inside.name for inside in path.iterdir())
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }
    return {"versions": found, "findings": findings, "directories": directories}


def rounds(folder: Path, moments: int, adapters: list[str], kind: str) -> list[dict[str, Any]]:
    def options(name: str) -> dict[str, Any]:
        return {"name": name} if kind == "version" else {"out": folder / name}

    calls = forked(lambda: merge(adapters, options("whole"), 0))
    done = []
    for step in range(moments):
        moment = 1 + step * calls // moments
        name = f"{kind}-{step}"
        counted = forked(lambda name=name, moment=moment: merge(adapters, options(name), moment))
        there = forked(lambda: what_is_there(folder))
        done.append({"name": name, "moment": moment, "killed": counted is None, **there})
    return done


def main() -> None:
    folder, moments, *adapters = sys.argv[1:]
    forked(lambda: merge(adapters, {"out": Path(folder) / "first"}, 0))
    results = {
        kind: rounds(Path(folder), int(moments), adapters, kind) for kind in ("version", "out")
    }
    print(json.dumps(results))


if __name__ == "__main__":
    # Imported once, so that a round takes as long as a merge only.
    for module in ("adapterhub.merge.pipeline", "adapterhub_merge.dense", "adapterhub_merge.ties"):
        importlib.import_module(module)
    main()
