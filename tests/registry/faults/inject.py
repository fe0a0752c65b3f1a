"""Lets every call of the C library fail in turn, below each kind of change, in forked children.

Run by `shim.run` as `inject.py TEMPLATE PAYLOADS SCRATCH FAULT STRIDE KIND...`. TEMPLATE is a
home with a registry, which every child gets a copy of. A FAULT is `ENOSPC`, `EIO`, `EINTR`,
`SHORT`, or one with a `+`: from then on every call fails. STRIDE: every how many-th call. Prints
a line of JSON for each kind: how many sites there are, how many were tried and how many of these
made the change fail.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import sys
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shim import SHORT_WRITE, Shim
from workload import Workload, snapshot, wrong

from adapterhub.errors import AdzError
from adapterhub_registry.store import LocalRegistry

# A failure of one of these may come after its change was made.
IN_STEPS = ("gc",)
# These change nothing that a registry acknowledges.
INVISIBLE = ("rebuild", "view", "heal")


def main() -> None:
    template, payloads, scratch = (Path(argument) for argument in sys.argv[1:4])
    fault, stride, kinds = sys.argv[4], int(sys.argv[5]), sys.argv[6:]
    warm_up(template, payloads, scratch)
    for kind in kinds:
        trial = Trial(template, payloads, scratch, kind, fault)
        trial.choose_seed()
        sites = trial.run(0)["calls"]
        # Which ones are tried of many is a matter of chance, but always the same.
        first = 1 + zlib.crc32(f"{kind} {fault}".encode()) % min(stride, sites)
        done = [trial.run(at) for at in range(first, sites + 1, stride)]
        bad = [answer for answer in done if answer["problem"]]
        assert not bad, f"{kind}, {fault}: {json.dumps(bad[0], indent=1)}"
        failed = sum(answer["failed"] for answer in done)
        hit = sum(answer["hit"] for answer in done)
        counts = {"sites": sites, "tried": len(done), "hit": hit, "failed": failed}
        print(json.dumps({"kind": kind, **counts}))


def warm_up(template: Path, payloads: Path, scratch: Path) -> None:
    """Import everything that the changes import."""
    home = scratch / "warm"
    shutil.copytree(template, home)
    Workload(LocalRegistry(home), payloads, 0).run("commit")
    shutil.rmtree(home)
    # The children collect garbage: not all that was imported, each time.
    gc.collect()
    gc.freeze()


@dataclass
class Trial:
    """One kind of change and one kind of fault. `seed` makes the change do something."""

    template: Path
    payloads: Path
    scratch: Path
    kind: str
    fault: str
    seed: int = 0

    def choose_seed(self) -> None:
        """A seed with which the change changes something, where that can be seen."""
        home = self.scratch / "seed"
        for self.seed in range(50):
            shutil.copytree(self.template, home)
            registry = LocalRegistry(home)
            before = snapshot(registry), sorted(p.name for p in registry.blobs.directory.iterdir())
            Workload(registry, self.payloads, self.seed).run(self.kind)
            after = snapshot(registry), sorted(p.name for p in registry.blobs.directory.iterdir())
            shutil.rmtree(home)
            if before != after or self.kind in INVISIBLE:
                return
        raise AssertionError(f"{self.kind} does nothing")

    def run(self, at: int) -> dict[str, Any]:
        """Try one site in a child; then look at what it left with fresh eyes."""
        home = self.scratch / "home"
        shutil.copytree(self.template, home)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                answer = self.attempt(home, at)
            except BaseException:
                answer = {"problem": traceback.format_exc()}
            os.write(writer, json.dumps({"at": at, **answer}).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = json.loads(pipe.read())
        os.waitpid(child, 0)
        if not answer["problem"]:
            registry = LocalRegistry(home)
            if json.loads(json.dumps(snapshot(registry))) != answer["last"]:
                answer["problem"] = "another process sees something else"
            elif found := wrong(registry):
                answer["problem"] = f"another process finds {found}"
        answer.pop("last", None)
        shutil.rmtree(home)
        return answer

    def attempt(self, home: Path, at: int) -> dict[str, Any]:
        """In the child: the change with the fault, then without it."""
        shim = Shim()
        before = snapshot(LocalRegistry(home))
        number = SHORT_WRITE if self.fault == "SHORT" else getattr(errno, self.fault.rstrip("+"))
        # Closing a database writes too: that happens now and below, and at no other time.
        gc.collect()
        gc.disable()
        shim.watch(home)
        shim.arm(at, number, repeated=self.fault.endswith("+"))
        failed = None
        try:
            Workload(LocalRegistry(home), self.payloads, self.seed).run(self.kind)
        except (OSError, AdzError) as error:
            failed = error
            error.__traceback__ = None
        gc.collect()
        hit, calls = shim.hit, shim.calls
        shim.disarm()
        answer = {"calls": calls, "hit": hit, "failed": failed is not None, "problem": None}
        registry = LocalRegistry(home)
        problem = self.problem(registry, failed, before)
        if problem:
            return {**answer, "problem": problem}
        # The next try works.
        Workload(registry, self.payloads, self.seed).run(self.kind)
        if failed and self.kind not in (*IN_STEPS, *INVISIBLE) and snapshot(registry) == before:
            return {**answer, "problem": f"after {failed!r} the next try did nothing"}
        registry.collect(grace_seconds=0)
        if left := list(registry.ingest.iterdir()):
            return {**answer, "problem": f"left: {left}"}
        return {**answer, "last": snapshot(registry)}

    def problem(
        self, registry: LocalRegistry, failed: Exception | None, before: dict[str, Any]
    ) -> str:
        """What the fault left that should not be there; an empty text for nothing."""
        now, found = snapshot(registry), wrong(registry)
        if failed and self.kind == "rebuild":
            # Its journal was damaged before.
            found = [finding for finding in found if finding.subject != "names.jsonl"]
        if failed and self.kind not in IN_STEPS and now != before:
            return f"{failed}, yet it was done: {before} -> {now}"
        if failed and self.fault == "SHORT":
            return f"a short write is no error: {failed}"
        return f"after {failed!r}: {found}" if found else ""


if __name__ == "__main__":
    main()
