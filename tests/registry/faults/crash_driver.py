"""Kills a process that commits and tags, again and again, at random moments.

Run as `crash_driver.py HOME PAYLOAD ROUNDS SEED`; prints what was acknowledged before each kill
as JSON: [["commit", number, digest], ["tag", number], ...]. It forks instead of starting an
interpreter for each round, which makes 200 rounds a matter of seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from adapterhub.manifest import BaseLink, Manifest
from adapterhub_registry.store import LocalRegistry

MANIFEST = Manifest(name="sql", method="lora", made_by="import", base=BaseLink(status="unknown"))


def main() -> None:
    home, payload, rounds, seed = sys.argv[1:]
    moments = random.Random(int(seed))
    scale = warm_up(Path(payload))
    acknowledged: list[list[object]] = []
    for _ in range(int(rounds)):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            commit_until_killed(Path(home), Path(payload), writer)
        os.close(writer)
        time.sleep(moments.uniform(0, 4 * scale))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        # The child ends by our kill only: an error of its own is a failure of the test.
        assert os.WIFSIGNALED(status), "the writer stopped by itself"
        with os.fdopen(reader, "rb") as pipe:
            acknowledged += [json.loads(line) for line in pipe.read().splitlines()]
    print(json.dumps(acknowledged))


def warm_up(payload: Path) -> float:
    """Import everything that a commit imports; return how many seconds a commit takes."""
    with tempfile.TemporaryDirectory() as folder:
        registry = LocalRegistry(Path(folder))
        registry.commit(MANIFEST, payload)
        begin = time.perf_counter()
        for _ in range(5):
            registry.tag(registry.commit(MANIFEST, payload).reference, "prod")
        return (time.perf_counter() - begin) / 5


def commit_until_killed(home: Path, payload: Path, writer: int) -> None:
    try:
        registry = LocalRegistry(home)
        while True:
            version = registry.commit(MANIFEST, payload)
            _acknowledge(writer, ["commit", version.number, version.digest])
            registry.tag(version.reference, "prod")
            _acknowledge(writer, ["tag", version.number])
    finally:
        os._exit(1)


def _acknowledge(writer: int, what: list[object]) -> None:
    os.write(writer, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
