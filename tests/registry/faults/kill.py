"""Kills processes that change a registry, again and again, at random moments.

Run as `kill.py SCRATCH PAYLOADS KILLS SEED`. Each round forks a child of this warm process, which
prepares a change of one kind, begins it, and is killed. Then this process looks at the registry:
the history that was acknowledged is there, at most the change that was under way is new, and fsck
finds nothing. Prints a line of JSON: for each kind how many were killed, and how many of these
within the change.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import BaseLink, Manifest, canonical_json, sha256_of
from adapterhub.merge.silent import Silent
from adapterhub_registry.store import LocalRegistry

BATCH = 50
MANIFEST = Manifest(name="sql", method="lora", made_by="import", base=BaseLink(status="unknown"))
PREPARATION = {
    "commit": (),
    "tag": ("commit",),
    "remove": ("commit",),
    "remove name": ("commit", "commit", "tag"),
    "restore": ("commit", "remove"),
    "gc": ("commit", "remove"),
    "view": ("commit",),
    "push": ("commit",),
    "pull": ("commit", "push"),
}


class Place:
    """A registry, a directory that it pushes to, and a registry that pulls from there."""

    def __init__(self, folder: Path, payloads: Path) -> None:
        self.home, self.mirror, self.share = (folder / n for n in ("home", "mirror", "share"))
        self.share.mkdir(parents=True, exist_ok=True)
        os.environ["ADZ_HOME"] = str(self.home)
        self.registry = LocalRegistry(self.home)
        self._payloads = itertools.cycle(sorted(payloads.iterdir()))

    def run(self, kind: str) -> list[str] | None:
        """Make one change; return what it acknowledges, beside the history of the registry."""
        changes: dict[str, Callable[[], Any]] = {
            "commit": lambda: self.registry.commit(MANIFEST, next(self._payloads)),
            "tag": lambda: self.registry.tag("sql", "prod"),
            "remove": self._remove,
            "remove name": lambda: self.registry.remove("sql"),
            "restore": lambda: self.registry.restore(f"sql@{self._last('remove')}"),
            "gc": lambda: self.registry.collect(grace_seconds=0, retention_seconds=0),
            "view": lambda: self.registry.path(self.registry.resolve("sql")),
            "push": self._push,
            "pull": self._pull,
        }
        done = changes[kind]()
        return done if kind in ("push", "pull") else None

    def _last(self, action: str) -> int:
        return [e.version or 0 for e in self.registry.log("sql") if e.action == action][-1]

    def _remove(self) -> None:
        version = self.registry.resolve("sql")
        for alias in version.aliases:
            self.registry.untag("sql", alias)
        self.registry.remove(version.reference)

    def _push(self) -> list[str]:
        version = self.registry.resolve("sql")
        list(push(self.registry, open_remote(str(self.share)), [version.reference], Silent()))
        return ["pushed", str(version.number), version.digest]

    def _pull(self) -> list[str]:
        number = str(max(int(tag) for tag in open_remote(str(self.share)).tags("sql")))
        mirror = LocalRegistry(self.mirror)
        [done] = pull(mirror, open_remote(str(self.share)), [f"sql@{number}"], Silent())
        return ["pulled", number, done.digest]

    def history(self) -> list[list[Any]]:
        """Every event of the registry."""
        with self.registry.database.reading() as connection:
            return [list(row) for row in connection.execute("SELECT * FROM events ORDER BY seq")]


def digest(history: list[list[Any]]) -> str:
    return sha256_of(canonical_json(history))


def main() -> None:
    scratch, payloads = Path(sys.argv[1]), Path(sys.argv[2])
    kills, moments = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    times = warm_up(scratch / "warm", payloads)
    counts = {kind: [0, 0] for kind in PREPARATION}
    done = 0
    while done < kills:
        folder = scratch / f"batch-{done}"
        promised: list[list[str]] = []
        for _ in range(min(BATCH, kills - done)):
            kind = moments.choice(list(PREPARATION))
            within, kept = kill_one(folder, payloads, kind, moments.uniform(0, 1.2 * times[kind]))
            counts[kind][0] += 1
            counts[kind][1] += within
            promised += kept
            done += 1
        check_batch(folder, payloads, promised)
        shutil.rmtree(folder)
    print(json.dumps(counts))


def warm_up(folder: Path, payloads: Path) -> dict[str, float]:
    """Import everything that the changes import; return how many seconds each takes."""
    place, times = Place(folder, payloads), {}
    for kind, preparation in PREPARATION.items():
        taken = []
        for _ in range(3):
            for step in preparation:
                place.run(step)
            begin = time.perf_counter()
            place.run(kind)
            taken.append(time.perf_counter() - begin)
        times[kind] = sorted(taken)[1]
    shutil.rmtree(folder)
    return times


def kill_one(
    folder: Path, payloads: Path, kind: str, seconds: float
) -> tuple[bool, list[list[str]]]:
    """One round. Returns whether the change was under way, and what was promised beside the
    history."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        change(Place(folder, payloads), kind, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        lines = [pipe.readline()]
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        lines += pipe.readlines()
    # The child ends by our kill only: an error of its own is a failure of the test.
    assert os.WIFSIGNALED(status), f"{kind} stopped by itself: {lines}"
    said = [json.loads(line) for line in lines if line.endswith(b"\n")]
    known, found = said[-1]["events"], Place(folder, payloads).history()
    assert digest(found[:known]) == said[-1]["digest"], f"{kind}: what was acknowledged is lost"
    new = found[known:]
    # A whole change has one time; pushing makes none, pulling one elsewhere.
    assert len({row[1] for row in new}) <= (2 if kind == "remove" else 1), f"{kind}: {new}"
    wrong = list(Place(folder, payloads).registry.check(bases=False, only=()))
    assert not wrong, f"{kind}: {wrong}"
    return len(said) == 1, [line["promised"] for line in said if line["promised"]]


def change(place: Place, kind: str, writer: int) -> None:
    def say(promised: list[str] | None) -> None:
        history = place.history()
        line = {"events": len(history), "digest": digest(history), "promised": promised}
        os.write(writer, json.dumps(line).encode() + b"\n")

    try:
        promised = [place.run(step) for step in PREPARATION[kind]]
        say(next((promise for promise in promised if promise), None))
        say(place.run(kind))
        time.sleep(600)
    except BaseException as error:
        os.write(writer, repr(error).encode())
    finally:
        os._exit(1)


def check_batch(folder: Path, payloads: Path, promised: list[list[str]]) -> None:
    """Every byte of both registries, and that all of what was pushed can be pulled."""
    place = Place(folder, payloads)
    mirror = LocalRegistry(place.mirror)
    remote = open_remote(str(place.share))
    assert not list(place.registry.check(bases=False))
    assert not list(mirror.check(bases=False))
    fresh = LocalRegistry(folder / "fresh")
    list(pull(fresh, remote, ["sql"], Silent(), every=True)) if remote.names() else None
    there = {v.number: v.digest for v in fresh.versions()}
    here = {v.number: v.digest for v in mirror.versions()}
    for what, number, expected in promised:
        found = (there if what == "pushed" else here).get(int(number))
        assert found == expected, f"{what} {number} is lost"
    # What is left over can be cleared away, and the next change works.
    version = place.registry.commit(MANIFEST, next(payloads.iterdir()))
    place.registry.collect(grace_seconds=0, retention_seconds=0)
    assert not list(place.registry.ingest.iterdir())
    assert not list(place.registry.check(bases=False))
    before = place.history()
    place.registry.database.path.unlink()
    assert place.history() == before, "rebuilt from the journal, the history differs"
    assert place.registry.resolve(version.reference).digest == version.digest


if __name__ == "__main__":
    main()
