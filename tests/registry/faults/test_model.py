"""A registry against a plain dict: random changes, with faults of the disk and lost databases in
between. TEST_MODEL_EXAMPLES runs of up to TEST_MODEL_STEPS steps."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from workload import manifest

from adapterhub.errors import AdzError
from adapterhub_registry import database, disk
from adapterhub_registry.database import utc_text
from adapterhub_registry.store import LocalRegistry

EXAMPLES = int(os.environ.get("TEST_MODEL_EXAMPLES", "20"))
STEPS = int(os.environ.get("TEST_MODEL_STEPS", "30"))
EFFECTS = ("append", "copy", "make_directory", "protect", "rename", "sync", "write")
YESTERDAY = 1_700_000_000.0

names = st.sampled_from(["sql", "team/french"])
aliases = st.sampled_from(["prod", "beta"])
numbers = st.integers(1, 6)
seeds = st.integers(0, 3)
# Mostly none: else few changes would ever be made.
faults = st.one_of(st.just(0), st.just(0), st.integers(1, 25))


@dataclass
class Adapter:
    """One name of the model. versions: number -> (digest, state, which change removed it).
    moves: alias -> where it pointed, the present last. untagged: alias -> (change, number), where
    the removal of the whole name was the last that happened to it."""

    versions: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    moves: dict[str, list[int]] = field(default_factory=dict)
    untagged: dict[str, tuple[int, int]] = field(default_factory=dict)

    def live(self) -> dict[int, str]:
        return {n: digest for n, (digest, state, _) in self.versions.items() if state == "live"}

    def pointing(self) -> dict[str, int]:
        return {alias: moves[-1] for alias, moves in self.moves.items() if moves}

    def point(self, alias: str, number: int) -> None:
        if self.pointing().get(alias) != number:
            self.moves.setdefault(alias, []).append(number)
            self.untagged.pop(alias, None)

    def set(self, number: int, state: str, change: int = 0) -> None:
        self.versions[number] = (self.versions[number][0], state, change)


class Machine(RuleBasedStateMachine):
    """Every rule does a thing to the registry and to the model, or is refused by both."""

    payloads: Path

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(dir=memory))
        self.model: dict[str, Adapter] = {}
        self.changes = 0
        # Each change has a time of its own, as on a slow disk.
        times = (utc_text(YESTERDAY + tick / 100) for tick in itertools.count())
        self.clock = mock.patch.object(database, "utc_now", side_effect=times)
        self.clock.start()
        self.registry = LocalRegistry(self.folder / "home")

    def teardown(self) -> None:
        self.clock.stop()
        assert not list(self.registry.check(bases=False))
        shutil.rmtree(self.folder)

    def do(self, allowed: bool, fault: int, action: Callable[[], Any]) -> Any:
        """Do it with the `fault`-th effect failing; None where it failed, or was refused as it
        had to be."""
        refused = failed = None
        with Failing(fault):
            try:
                result = action()
            except OSError as error:
                failed = error
            except AdzError as error:
                refused = error
        assert fault or not failed, failed
        assert not (allowed and refused), refused
        if failed or refused:
            return None
        assert allowed, "this had to be refused"
        self.changes += 1
        return result

    @rule(name=names, seed=seeds, fault=faults)
    def commit(self, name: str, seed: int, fault: int) -> None:
        payload = self.payloads / str(seed)
        version = self.do(True, fault, lambda: self.registry.commit(manifest(name), payload))
        if version:
            adapter = self.model.setdefault(name, Adapter())
            assert version.number == max(adapter.versions, default=0) + 1
            adapter.versions[version.number] = (version.digest, "live", 0)

    @rule(name=names, number=numbers, alias=aliases, fault=faults)
    def tag(self, name: str, number: int, alias: str, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        allowed = number in adapter.live()
        if self.do(allowed, fault, lambda: self.registry.tag(f"{name}@{number}", alias)):
            adapter.point(alias, number)

    @rule(name=names, alias=aliases, fault=faults)
    def untag(self, name: str, alias: str, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        allowed = alias in adapter.pointing()
        done = self.do(allowed, fault, lambda: self.registry.untag(name, alias) or True)
        if done:
            adapter.moves[alias] = []

    @rule(name=names, alias=aliases, fault=faults)
    def rollback(self, name: str, alias: str, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        moves = adapter.moves.get(alias, [])
        allowed = len(moves) > 1 and moves[-2] in adapter.live()
        version = self.do(allowed, fault, lambda: self.registry.rollback(name, alias))
        if version:
            moves.pop()
            assert version.number == moves[-1]

    @rule(name=names, number=numbers, fault=faults)
    def remove(self, name: str, number: int, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        allowed = number in adapter.live() and number not in adapter.pointing().values()
        if self.do(allowed, fault, lambda: self.registry.remove(f"{name}@{number}")):
            adapter.set(number, "removed", self.changes)

    @rule(name=names, fault=faults)
    def remove_name(self, name: str, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        allowed = bool(adapter.live())
        if self.do(allowed, fault, lambda: self.registry.remove(name)):
            for alias, number in adapter.pointing().items():
                adapter.moves[alias] = []
                adapter.untagged[alias] = (self.changes, number)
            for number in adapter.live():
                adapter.set(number, "removed", self.changes)

    @rule(name=names, number=numbers, fault=faults)
    def restore(self, name: str, number: int, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        allowed = adapter.versions.get(number, ("", "", 0))[1] == "removed"
        if self.do(allowed, fault, lambda: self.registry.restore(f"{name}@{number}")):
            adapter.set(number, "live")

    @rule(name=names, fault=faults)
    def restore_name(self, name: str, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        removed = {n: v[2] for n, v in adapter.versions.items() if v[1] == "removed"}
        if self.do(bool(removed), fault, lambda: self.registry.restore(name)):
            for number in removed:
                adapter.set(number, "live")
            for alias, (change, number) in list(adapter.untagged.items()):
                if removed.get(number) == change:
                    adapter.point(alias, number)

    @rule(fault=faults)
    def collect(self, fault: int) -> None:
        def run() -> bool:
            return bool(self.registry.collect(grace_seconds=0, retention_seconds=0)) or True

        if not self.do(True, fault, run):
            # What was given up before the fault is gone, the rest is not: a second run says.
            self.do(True, 0, run)
        for adapter in self.model.values():
            for number, (_, state, _) in list(adapter.versions.items()):
                if state == "removed":
                    adapter.set(number, "collected")

    @rule(name=names, fault=faults)
    def view(self, name: str, fault: int) -> None:
        adapter = self.model.get(name, Adapter())
        allowed = bool(adapter.live())
        path = self.do(
            allowed, fault, lambda: self.registry.path(self.registry.resolve(f"{name}@latest"))
        )
        if path:
            assert (path / "adapter_model.safetensors").is_file()

    @rule()
    def open_again(self) -> None:
        self.registry = LocalRegistry(self.folder / "home")

    @rule()
    def lose_the_database(self) -> None:
        self.registry.database.path.unlink()

    @rule(fault=faults)
    def lose_the_end_of_the_journal(self, fault: int) -> None:
        journal = self.registry.database.journal.path
        if not journal.exists():
            return
        data = journal.read_bytes()
        journal.write_bytes(data[: len(data) // 2])

        def mend() -> bool:
            found = list(self.registry.check(bases=False))
            assert all(finding.subject == "names.jsonl" for finding in found), found
            list(self.registry.mend(found))
            return True

        if not self.do(True, fault, mend):
            self.do(True, 0, mend)

    @invariant()
    def same(self) -> None:
        live = {name: adapter.live() for name, adapter in self.model.items() if adapter.live()}
        found: dict[str, dict[int, str]] = {}
        pointing: dict[str, dict[str, int]] = {}
        for version in self.registry.versions():
            found.setdefault(version.name, {})[version.number] = version.digest
            for alias in version.aliases:
                pointing.setdefault(version.name, {})[alias] = version.number
        assert found == live
        assert pointing == {n: a.pointing() for n, a in self.model.items() if a.pointing()}
        assert self.registry.names() == sorted(live)


class Failing:
    """Makes one effect fail, before or after it was done; 0 makes none fail."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._patches = [
            mock.patch.object(disk, name, self._wrap(getattr(disk, name))) for name in EFFECTS
        ]

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(path: Path, *rest: Any) -> Any:
            self._left -= 1
            error = OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            if self._left == 0 and len(str(path)) % 2:
                raise error
            result = function(path, *rest)
            if self._left == 0:
                raise error
            return result

        return run

    def __enter__(self) -> None:
        for patch in self._patches:
            patch.start()

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()


def test_the_registry_is_the_model(
    payloads: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "payloads", payloads, raising=False)
    case = Machine.TestCase
    case.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
        derandomize=True, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    case("runTest").runTest()
    print(f"\nfigure: {EXAMPLES} runs of {STEPS} steps")
