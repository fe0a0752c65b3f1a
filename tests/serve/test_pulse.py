"""When an engine is taken for one that hangs, on the test's clock."""

from __future__ import annotations

import pytest

from adapterhub.serve.pulse import Pulse


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(60, clock)


def test_it_stalls_where_requests_wait_and_no_step_ends(pulse: Pulse, clock: Clock) -> None:
    pulse.enter()
    clock.now = 30.0
    # Another one that comes does not begin the wait anew.
    pulse.enter()
    clock.now = 60.0
    assert not pulse.stalled
    clock.now = 60.1
    assert pulse.stalled
    pulse.beat()
    assert not pulse.stalled


def test_an_idle_engine_is_well_for_ever(pulse: Pulse, clock: Clock) -> None:
    pulse.enter()
    pulse.beat()
    pulse.leave()
    clock.now = 10_000.0
    assert not pulse.stalled
    pulse.enter()
    clock.now = 10_059.0
    assert not pulse.stalled


def test_slow_steps_are_steps(pulse: Pulse, clock: Clock) -> None:
    pulse.enter()
    for clock.now in (50.0, 100.0, 150.0):
        assert not pulse.stalled
        pulse.beat()


def test_clients_that_give_up_sooner_hide_nothing(pulse: Pulse, clock: Clock) -> None:
    for _ in range(3):
        pulse.enter()
        clock.now += 25.0
        pulse.leave()
        clock.now += 1000.0
    assert pulse.stalled
    pulse.beat()
    assert not pulse.stalled


def test_without_a_limit_it_never_stalls(clock: Clock) -> None:
    pulse = Pulse(0, clock)
    pulse.enter()
    clock.now = 1e9
    assert not pulse.stalled
