"""Ctrl-C, forks, folders without the right to write, and kills while an old registry becomes one
of today. TEST_INTERRUPTS: how many processes are interrupted, and how many killed."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from workload import EVERYTHING, Workload, base, manifest, snapshot, wrong

from adapterhub.errors import AdzError
from adapterhub_registry.store import LocalRegistry

INTERRUPTS = int(os.environ.get("TEST_INTERRUPTS", "30"))


def fork(job: Callable[[], object]) -> int:
    """Run a job in a child, which ends with 0, with 130 for Ctrl-C and with 1 for an error."""
    # The child must not be interrupted before it is where it can end.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            job()
            status = 0
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_interrupts_at_any_moment_lose_nothing(scratch: Path, payloads: Path) -> None:
    home, chance = scratch / "home", random.Random(0)
    registry = LocalRegistry(home)
    payload = next(payloads.iterdir())
    registry.commit(manifest("sql"), payload)
    begin = time.perf_counter()
    registry.commit(manifest("sql"), payload)
    taken = time.perf_counter() - begin
    acknowledged = registry.versions()[-1].number

    def commit() -> None:
        mine = LocalRegistry(home)
        while True:
            version = mine.commit(manifest("sql"), payload)
            (scratch / "acknowledged").write_text(str(version.number))

    for _ in range(INTERRUPTS):
        child = fork(commit)
        time.sleep(chance.uniform(0, 4 * taken))
        os.kill(child, signal.SIGINT)
        assert exit_code(child) == 130
        assert not wrong(registry)
    if (scratch / "acknowledged").exists():
        acknowledged = int((scratch / "acknowledged").read_text() or 0)
    numbers = [version.number for version in registry.versions("sql")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= acknowledged
    # One interrupt can hit the clearing up after another step; `gc` takes what is left.
    registry.collect(grace_seconds=0)
    assert not list(registry.ingest.iterdir())
    print(f"\nfigure: {INTERRUPTS} interrupts")


def test_a_fork_within_a_transaction_harms_neither(registry: LocalRegistry, payloads: Path) -> None:
    payload = next(payloads.iterdir())
    registry.commit(manifest("sql"), payload)
    home = registry.root.parent

    def child() -> None:
        # The same object, with the connection of the parent in it.
        assert registry.resolve("sql").number == 1
        registry.versions()
        waiting = LocalRegistry(home, busy_seconds=0.1)
        with pytest.raises(AdzError, match="busy"):
            waiting.tag("sql@1", "child")

    with registry.database.changing() as change:
        change.record("tag", "sql", version=1, alias="parent")
        assert exit_code(fork(child)) == 0
        assert exit_code(fork(child)) == 0
    assert registry.resolve("sql@parent").number == 1

    def write() -> None:
        assert registry.tag("sql@1", "child").aliases == ("child", "parent")

    assert exit_code(fork(write)) == 0
    assert registry.resolve("sql").aliases == ("child", "parent")
    assert registry.commit(manifest("sql"), payload).number == 2
    assert not list(registry.check())


@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_a_folder_without_the_right_to_write_is_a_clear_error(
    scratch: Path, payloads: Path, open_elsewhere: bool
) -> None:
    home = scratch / "home"
    work = Workload(LocalRegistry(home), payloads, 0)
    for kind in EVERYTHING[:8]:
        work.run(kind)
    before, payload = snapshot(work.registry), scratch / "payload"
    reference = work.registry.versions()[-1].reference
    shutil.copytree(next(payloads.iterdir()), payload)
    if not open_elsewhere:
        work.registry.database._local.connection.close()
    scratch.chmod(0o755)
    for path in [home, *home.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def look() -> None:
        if os.geteuid() == 0:
            # For root every folder is writable.
            os.setgid(65534)
            os.setuid(65534)
        actions: list[Callable[[LocalRegistry], Any]] = [
            lambda mine: mine.commit(manifest("sql"), payload),
            lambda mine: mine.tag(reference, "other"),
            lambda mine: mine.remove(reference),
            lambda mine: mine.add_base(base("other")),
        ]
        for action in actions:
            with pytest.raises((AdzError, PermissionError)) as caught:
                action(LocalRegistry(home))
            assert str(home) in str(caught.value), caught.value
        try:
            assert snapshot(LocalRegistry(home)) == before
        except (AdzError, PermissionError) as error:
            assert str(home) in str(error)  # noqa: PT017

    assert exit_code(fork(look)) == 0
    for path in [home, *home.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    registry = LocalRegistry(home)
    assert snapshot(registry) == before
    assert not wrong(registry)


def migration() -> ModuleType:
    """The module with the tables of version 1."""
    path = Path(__file__).parents[1] / "test_migration.py"
    spec = importlib.util.spec_from_file_location("migration", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kills_within_a_migration_leave_the_old_or_the_new_tables(
    scratch: Path, payloads: Path
) -> None:
    template, old = scratch / "template", migration()
    work = Workload(LocalRegistry(template), payloads, 0)
    for kind in EVERYTHING:
        # Version 1 knew neither restored nor collected versions.
        if kind not in ("restore", "gc", "rebuild"):
            work.run(kind)
    for _ in range(60):
        work.run("attest")
    before = snapshot(work.registry)
    work.registry.database._local.connection.close()
    old.make_old(work.registry.database.path)
    chance, within = random.Random(0), 0
    begin = time.perf_counter()
    shutil.copytree(template, scratch / "first")
    LocalRegistry(scratch / "first").names()
    taken = time.perf_counter() - begin
    for number in range(INTERRUPTS):
        home = scratch / f"home-{number}"
        shutil.copytree(template, home)
        child = fork(lambda home=home: (LocalRegistry(home).names(), time.sleep(60)))
        time.sleep(chance.uniform(0, 1.2 * taken))
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        with old.sqlite3.connect(home / "registry" / "registry.sqlite3") as connection:
            within += connection.execute("PRAGMA user_version").fetchone()[0] == 1
        connection.close()
        registry = LocalRegistry(home)
        assert snapshot(registry) == before
        assert not wrong(registry)
        shutil.rmtree(home)
    # Kills after the migration only would prove nothing.
    assert within > INTERRUPTS / 5
    print(f"\nfigure: {INTERRUPTS} kills while the schema changed, {within} before its end")
