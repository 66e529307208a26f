"""What a plan may still do here is asked of the ledger: a coordinator cannot widen it by opening it anew."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from enterprise_node import record
from enterprise_node.job import STOPPED
from enterprise_node.session import remove_tree


async def _refused_then_reopened(world: Any, content: Any) -> str:
    """Let a step be refused at the gate, close and open the plan again, and ask once more; returns the code."""
    plan = world.plan(world.agreement())
    assert (await world.open(plan)).permitted

    async def diverged() -> Any:
        return content(arrays={"arrays": {"0": np.full(2, np.nan, dtype=np.float32)}})

    good, world.reply = world.reply, diverged
    assert (await world.invoke(plan))[0].code == "output-refused"
    world.reply = good
    await world.line.close_job(plan.digest)
    assert (await world.open(plan)).permitted
    return str((await world.invoke(plan, 2))[0].code)


async def test_inv3_a_plan_that_ended_at_the_gate_stays_ended_when_it_is_opened_again(world: Any, content: Any) -> None:
    assert await _refused_then_reopened(world, content) == "job-ended"


async def test_without_that_check_the_gate_could_be_asked_again_and_again(
    world: Any, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "check_course", lambda *_: None)
    assert await _refused_then_reopened(world, content) == ""


async def test_inv1_a_coordinator_gets_no_more_training_rounds_than_the_plan_holds(world: Any) -> None:
    plan = world.plan(world.agreement(), rounds=2)
    assert (await world.open(plan)).permitted
    codes = [(await world.invoke(plan, number))[0].code for number in (1, 2, 3)]
    assert codes == ["", "", "rounds-exceeded"]
    assert len(world.entries("intent")) == 2


@pytest.mark.parametrize("reason", ["closed", STOPPED])
async def test_a_plan_opened_anew_has_no_session_before_its_last_one_ended(
    world: Any, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    plan = world.plan(world.agreement())
    assert (await world.open(plan)).permitted
    assert (await world.invoke(plan))[0].code == ""
    first = world.sessions[0]
    ending, go, close = asyncio.Event(), asyncio.Event(), first.close

    async def slowly() -> None:
        ending.set()
        await go.wait()
        await close()
        remove_tree(first.snapshot.folder.parent)

    monkeypatch.setattr(first, "close", slowly)
    closing = asyncio.create_task(world.line.close_job(plan.digest, reason))
    await ending.wait()

    async def again() -> Any:
        assert (await world.open(plan)).permitted
        return await world.invoke(plan, 2)

    anew = asyncio.create_task(again())
    done, _ = await asyncio.wait((anew,), timeout=0.3)
    assert not done and len(world.sessions) == 1
    go.set()
    await closing
    assert (await anew)[0].code == ""
    assert len(world.sessions) == 2 and world.sessions[1].snapshot.folder.exists()
    assert list(world.line.jobs) == [plan.digest]
