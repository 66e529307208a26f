"""inv1: time is the node's, checked against the others'; while its clock is not to be believed nothing is granted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from federation.peer_times import ClockError, PeerTimes


async def test_inv1_after_a_jump_nothing_is_granted_and_nothing_lost(world: Any) -> None:
    agreement = world.agreement(count=2)
    first, second = world.plan(agreement), world.plan(agreement)
    world.line.times.greeted("inst", world.clock())
    await world.open(first)
    assert (await world.invoke(first))[0].outcome == "ok"
    world.clock.ahead = timedelta(hours=2)
    with pytest.raises(ClockError):
        await world.open(second)
    with pytest.raises(ClockError):
        await world.invoke(first, 2)
    assert world.record.uses(agreement.digest) == 1 and len(world.entries("intent")) == 1
    world.clock.ahead = timedelta()
    await world.open(second)
    assert (await world.invoke(second))[0].outcome == "ok", "set right again, it goes on where it was"


async def test_without_the_check_it_would_be_granted(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeerTimes, "check", lambda self: None)
    plan = world.plan(world.agreement())
    world.line.times.greeted("inst", world.clock())
    await world.open(plan)
    world.clock.ahead = timedelta(hours=2)
    assert (await world.invoke(plan))[0].outcome == "ok"
