"""Looks at what a power loss left: whether it is what was acknowledged, and whether it works."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crashes import Crash, crashes, fingerprint, part, write_state
from exchanging import shared
from operations import Operation
from power import State
from workload import manifest, snapshot, wrong

from adapterhub_registry.store import LocalRegistry

# At each place, beside those that follow from what is not safe there.
RANDOM_CHOICES = 2


@dataclass(frozen=True)
class Seen:
    """says: what is acknowledged there. wrong: subject -> what fsck finds. error: what stopped
    it. unusable: why it cannot be worked with."""

    says: Any = None
    wrong: dict[str, str] = field(default_factory=dict)
    error: str = ""
    unusable: str = ""


class Examiner:
    """Examines one crash after the other in `scratch`. What lies in `home`, `mirror` and `share`
    is looked at once for each state that it is in."""

    def __init__(self, scratch: Path, payload: Path) -> None:
        self._scratch = scratch
        self._payload = payload
        self._known: dict[tuple[str, bytes], Seen] = {}
        self._homes = 0

    def problem(self, crash: Crash) -> str:
        """What is wrong; an empty text for nothing."""
        found = {name: self._look(crash.state, name) for name in ("home", "mirror", "share")}
        what = crash.after[0]
        for name, seen in found.items():
            # The journal of the home was damaged before a rebuild.
            wrong = seen.wrong.keys() - ({"names.jsonl"} if what == "rebuild" else set())
            if seen.error or wrong or (seen.unusable and what != "rebuild"):
                return f"{what}: {name}: {seen}"
        says = {name: seen.says for name, seen in found.items()}
        if says not in (crash.before[1], crash.after[1]):
            return f"{what}: {says} is neither of {crash.before[1]} and {crash.after[1]}"
        return ""

    def _look(self, state: State, name: str) -> Seen:
        mine = part(state, name)
        key = (name, fingerprint(mine))
        if key not in self._known:
            shutil.rmtree(self._scratch, ignore_errors=True)
            write_state(mine, self._scratch)
            self._known[key] = self._see(self._scratch / name)
        return self._known[key]

    def _see(self, folder: Path) -> Seen:
        try:
            if folder.name == "share":
                return Seen(_plain(shared(folder)))
            registry = LocalRegistry(folder)
            says = _plain(snapshot(registry))
            findings = {finding.subject: finding.problem for finding in wrong(registry)}
        except Exception as error:
            return Seen(error=f"{type(error).__name__}: {error}")
        if folder.name == "home":
            self._homes += 1
            if self._homes % 10 == 0:
                return Seen(says, findings, unusable=self._use(registry, folder))
        return Seen(says, findings)

    def _use(self, registry: LocalRegistry, home: Path) -> str:
        """The next commit works, and so does a rebuild from the journal alone."""
        committed = registry.commit(manifest("sql"), self._payload)
        version = registry.tag(committed.reference, "prod")
        registry.collect(grace_seconds=0, retention_seconds=0)
        if findings := wrong(registry):
            return f"after the next commit: {findings}"
        now = snapshot(registry)
        registry.database.path.unlink()
        # Of leases, the journal does not tell.
        if snapshot(LocalRegistry(home)) | {"leased": now["leased"]} != now:
            return "rebuilt from the journal, the registry says something else"
        return "" if version.reference in str(now) else "the commit is not there"


def examine(operations: list[Operation], folder: Path, stride: int = 1) -> Iterator[str]:
    """A problem, or an empty text, for every crash of a record that was made in `folder`, or for
    every `stride`-th of them."""
    payload = next((folder.parent / "payloads").iterdir())
    examiner = Examiner(folder.with_suffix(".state"), payload)
    found = crashes(operations, folder, folder.stat().st_ino, random.Random(0), RANDOM_CHOICES)
    return (examiner.problem(crash) for crash in itertools.islice(found, 0, None, stride))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
