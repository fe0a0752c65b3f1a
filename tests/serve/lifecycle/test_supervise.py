"""An engine that dies is started again, with pauses that grow; signals end it in order."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub.protocols import ServeSettings
from adapterhub.serve.lifecycle.supervise import BackOff, Supervisor


class Progress:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    warn = note


class Engine:
    """Runs `life` seconds of the test's clock, or until it is stopped; `starts` is whether it
    comes up."""

    def __init__(self, world: World, life: float | None, starts: bool) -> None:
        self._world, self._life, self._starts = world, life, starts
        self._over = threading.Event()
        self.drained: list[float] = []
        self.stopped = 0

    def wait_until_ready(self) -> None:
        if not self._starts:
            raise AdzError("it did not start", "see its log")

    def wait(self) -> AdzError:
        if self._life is None:
            self._over.wait(30)
        else:
            self._world.now += self._life
        return AdzError("it died", "see its log")

    def drain(self, seconds: float) -> None:
        self.drained.append(seconds)
        if self._world.slow_drain:
            time.sleep(30)

    def stop(self) -> None:
        self.stopped += 1


class World:
    """A clock, and one engine after the other. `lives` are their seconds; "no" does not start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lives: Any) -> None:
        self.now, self.pauses, self.states = 1000.0, [], []
        self.ready: list[str] = []
        self.engines: list[Engine] = []
        self.progress = Progress()
        self.slow_drain = False
        self._lives = list(lives)
        supervise = "adapterhub.serve.lifecycle.supervise"
        monkeypatch.setattr(f"{supervise}.monotonic", lambda: self.now)
        monkeypatch.setattr(f"{supervise}.sleep", self._pause)

    pauses: list[float]
    states: list[str]

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def _start(self) -> Engine:
        life = self._lives.pop(0)
        engine = Engine(self, None if life == "no" else life, life != "no")
        self.engines.append(engine)
        return engine

    def run(self, **settings: Any) -> int:
        given = ServeSettings(
            "tiny", ready=self.ready.append, status=self.states.append, **settings
        )
        back_off = BackOff(most=4)
        return Supervisor(self._start, "http://x/v1", given, self.progress, back_off).run()  # type: ignore


def signalled_after(seconds: float, *numbers: signal.Signals) -> Callable[[], None]:
    def send() -> None:
        for number in numbers:
            time.sleep(seconds)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread.join


def test_the_pauses_double_and_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, 5, 5, "no", 5)
    with pytest.raises(AdzError, match="it died: given up after 4 failures in a row"):
        world.run()
    assert world.pauses == [1, 2, 4]
    assert world.ready == ["http://x/v1"]
    assert world.states == ["ready", "restarting", "ready", "restarting", "restarting", "ready"]
    assert [engine.stopped > 0 for engine in world.engines] == [True] * 4
    assert world.progress.lines[0] == "it died (see its log); starting again in 1 s"


def test_after_a_while_of_health_the_pauses_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, 5, 5, 61, 5, 5, 5)
    with pytest.raises(AdzError, match="given up after 4 failures"):
        world.run()
    assert world.pauses == [1, 2, 1, 2, 4]


def test_a_pause_is_never_longer_than_the_longest() -> None:
    assert [BackOff().delay(n) for n in (1, 2, 6, 7, 50)] == [1, 2, 32, 60, 60]


def test_what_does_not_start_at_first_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "no", 5)
    with pytest.raises(AdzError, match="it did not start"):
        world.run()
    assert (world.pauses, world.ready, len(world.engines)) == ([], [], 1)
    assert world.engines[0].stopped


def test_without_restarts_the_first_death_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, 500, 5)
    with pytest.raises(AdzError, match=r"^it died \(see its log\)$"):
        world.run(restart=False)
    assert len(world.engines) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_drains_and_then_stops(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    world = World(monkeypatch, None)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    join = signalled_after(0.2, number)
    assert world.run(drain_seconds=3) == code
    join()
    (engine,) = world.engines
    assert (engine.drained, engine.stopped) == ([3], 1)
    assert world.states == ["ready", "draining"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_signal_cuts_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, None)
    world.slow_drain = True
    join = signalled_after(0.2, signal.SIGTERM, signal.SIGTERM)
    begun = time.monotonic()
    assert world.run() == 0
    join()
    assert time.monotonic() - begun < 10
    assert world.engines[0].stopped == 1
