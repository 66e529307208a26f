"""A clock that jumps, or that most others contradict, is found out before anything is judged by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from federation.peer_times import APART, ClockError, PeerTimes

SECOND = timedelta(seconds=1)


class Machine:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.steady = 1000.0
        self.times = PeerTimes(lambda: self.wall, lambda: self.steady)

    def wait(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_where_nobody_was_heard_nothing_is_said(machine: Machine) -> None:
    machine.times.check()
    machine.wall += timedelta(days=400)
    machine.times.check()


def test_time_that_passes_is_no_jump(machine: Machine) -> None:
    machine.times.greeted("inst", machine.wall)
    machine.wait(90 * 86400)
    machine.times.check()


@pytest.mark.parametrize("jump", [APART + SECOND, -(APART + SECOND), timedelta(days=365), -timedelta(days=365)])
def test_a_jump_is_seen_at_once(machine: Machine, jump: timedelta) -> None:
    machine.times.greeted("inst", machine.wall)
    machine.times.heard("mill", machine.wall)
    machine.wait(5)
    machine.wall += jump
    with pytest.raises(ClockError) as caught:
        machine.times.check()
    assert f"{int(abs(jump.total_seconds()))} s apart" in caught.value.message


def test_what_two_honest_clocks_may_differ_by_is_borne(machine: Machine) -> None:
    machine.times.greeted("inst", machine.wall + APART)
    machine.times.heard("mill", machine.wall - APART)
    machine.times.check()


def test_a_coordinator_that_lies_alone_is_outvoted_by_witnesses(machine: Machine) -> None:
    machine.times.greeted("inst", machine.wall + timedelta(hours=3))
    with pytest.raises(ClockError):
        machine.times.check()
    for name in ("a", "b"):
        machine.times.heard(name, machine.wall)
    machine.times.check()


def test_a_coordinator_that_agrees_with_a_wrong_clock_is_outvoted_too(machine: Machine) -> None:
    machine.times.greeted("inst", machine.wall)
    for name in ("a", "b"):
        machine.times.heard(name, machine.wall + timedelta(hours=3))
    with pytest.raises(ClockError, match="2 of 3"):
        machine.times.check()


def test_a_new_greeting_begins_anew(machine: Machine) -> None:
    machine.times.greeted("inst", machine.wall)
    machine.times.heard("mill", machine.wall)
    machine.wall += timedelta(hours=3)
    with pytest.raises(ClockError):
        machine.times.check()
    machine.times.greeted("inst", machine.wall)
    machine.times.check()
