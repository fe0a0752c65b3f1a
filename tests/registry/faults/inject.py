"""Lets every call of the C library fail in turn, below each kind of change, in forked children.

Run by `shim.run` as `inject.py TEMPLATE PAYLOADS SCRATCH FAULT STRIDE KIND...`. TEMPLATE is the
folder of an `ExchangingWorkload`, which every child gets a copy of. A FAULT is `ENOSPC`, `EIO`,
`EINTR`, `SHORT`, or one with a `+`: from then on every call fails. STRIDE: every how many-th call.
Prints a line of JSON for each kind: how many sites there are, how many were tried, how many of
these were reached or lay behind the last call of their run, and how many made the change fail.
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

from exchanging import ExchangingWorkload
from shim import SHORT_WRITE, Shim
from workload import Workload, wrong

from adapterhub.errors import AdzError
from adapterhub.protocols import Finding
from adapterhub_registry.store import LocalRegistry

# A failure of one of these may come after its change was made.
IN_STEPS = ("overtaken", "gc", "push", "push alias", "pull", "pull back")
# These change nothing that a registry acknowledges.
INVISIBLE = ("rebuild", "view", "heal", "reopen")


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
        # With a second thread that syncs, one run has a call or two less than another.
        beyond = sum(not answer["hit"] and answer["calls"] < answer["at"] for answer in done)
        counts = {"sites": sites, "tried": len(done), "hit": hit, "beyond": beyond}
        counts["failed"] = failed
        print(json.dumps({"kind": kind, **counts}))


def warm_up(template: Path, payloads: Path, scratch: Path) -> None:
    """Import everything that the changes import."""
    folder = scratch / "warm"
    shutil.copytree(template, folder)
    work = ExchangingWorkload(folder, payloads, 0)
    for kind in ("commit", "push", "pull"):
        work.run(kind)
    shutil.rmtree(folder)
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

    def open(self, folder: Path) -> Workload:
        """The registry, and where something is exchanged also with whom."""
        if self.kind.startswith(("push", "pull")):
            return ExchangingWorkload(folder, self.payloads, self.seed)
        return Workload(LocalRegistry(folder / "home"), self.payloads, self.seed)

    def choose_seed(self) -> None:
        """A seed with which the change changes something, where that can be seen."""
        folder = self.scratch / "seed"
        for self.seed in range(200):
            shutil.copytree(self.template, folder)
            work = self.open(folder)
            before = work.snapshot(), files(folder)
            work.run(self.kind)
            after = work.snapshot(), files(folder)
            shutil.rmtree(folder)
            if before != after or self.kind in INVISIBLE:
                return
        raise AssertionError(f"{self.kind} does nothing")

    def run(self, at: int) -> dict[str, Any]:
        """Try one site in a child; then look at what it left with fresh eyes."""
        folder = self.scratch / "tried"
        shutil.copytree(self.template, folder)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                answer = self.attempt(folder, at)
            except BaseException:
                answer = {"problem": traceback.format_exc()}
            os.write(writer, json.dumps({"at": at, **answer}).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = json.loads(pipe.read())
        os.waitpid(child, 0)
        if not answer["problem"]:
            work = self.open(folder)
            if json.loads(json.dumps(work.snapshot())) != answer["last"]:
                answer["problem"] = "another process sees something else"
            elif found := all_wrong(work):
                answer["problem"] = f"another process finds {found}"
        answer.pop("last", None)
        shutil.rmtree(folder)
        return answer

    def attempt(self, folder: Path, at: int) -> dict[str, Any]:
        """In the child: the change with the fault, then without it."""
        shim = Shim()
        before = self.open(folder).snapshot()
        number = SHORT_WRITE if self.fault == "SHORT" else getattr(errno, self.fault.rstrip("+"))
        # Closing a database writes too: that happens now and below, and at no other time.
        gc.collect()
        gc.disable()
        shim.watch(folder)
        shim.arm(at, number, repeated=self.fault.endswith("+"))
        failed = None
        try:
            self.open(folder).run(self.kind)
        except (OSError, AdzError) as error:
            failed = error
            forget_frames(error)
        gc.collect()
        hit, calls = shim.hit, shim.calls
        shim.disarm()
        answer = {"calls": calls, "hit": hit, "failed": failed is not None, "problem": None}
        work = self.open(folder)
        problem = self.problem(work, failed, before)
        if problem:
            return {**answer, "problem": problem}
        # The next try works.
        work.run(self.kind)
        after = work.snapshot()
        if failed and self.kind not in (*IN_STEPS, *INVISIBLE) and after == before:
            return {**answer, "problem": f"after {failed!r} the next try did nothing"}
        for registry in work.registries():
            registry.collect(grace_seconds=0)
            if left := list(registry.ingest.iterdir()):
                return {**answer, "problem": f"left: {left}"}
        return {**answer, "last": work.snapshot()}

    def problem(self, work: Workload, failed: Exception | None, before: dict[str, Any]) -> str:
        """What the fault left that should not be there; an empty text for nothing."""
        now, found = work.snapshot(), all_wrong(work)
        if failed and self.kind == "rebuild":
            # Its journal was damaged before.
            found = [finding for finding in found if finding.subject != "names.jsonl"]
        if failed and self.kind not in IN_STEPS and now != before:
            return f"{failed}, yet it was done: {before} -> {now}"
        if failed and self.fault == "SHORT":
            return f"a short write is no error: {failed}"
        return f"after {failed!r}: {found}" if found else ""


def forget_frames(error: BaseException | None) -> None:
    """What failed is not kept alive by its errors, as in a process that reports them."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def files(folder: Path) -> list[str]:
    """The names of the blobs in the registry."""
    return sorted(path.name for path in folder.glob("home/registry/blobs/sha256/*"))


def all_wrong(work: Workload) -> list[Finding]:
    """What fsck finds; a snapshot verifies the directory that was pushed to."""
    return [finding for registry in work.registries() for finding in wrong(registry)]


if __name__ == "__main__":
    main()
