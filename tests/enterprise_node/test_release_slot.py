"""When and how large answers leave: by the plan's slots, not by what job code does with its time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from enterprise_node import release_slot, steps
from enterprise_node.release_slot import ReleaseSlot
from enterprise_node.stages import METRIC_TEXT_BYTES, padding_of
from federation.errors import KeyongError
from federation.jobs.codec import Content
from federation.wire.messages import Invoked
from tests.virtual_time import in_virtual_time

EACH = {"aggregation": "each"}


class Hours:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("took", "slot"), [(0.0, 1), (59.9, 1), (60.0, 2), (61.0, 2), (185.0, 4)])
def test_an_answer_belongs_to_the_slot_that_runs_when_its_step_ends(took: float, slot: int) -> None:
    clock = Hours()
    slots = ReleaseSlot(60, clock)
    clock.now += took
    assert slots.slots == slot


@in_virtual_time
async def test_it_waits_for_the_end_of_its_slot_and_for_nothing_without_slots() -> None:
    clock = asyncio.get_running_loop().time
    slots, began = ReleaseSlot(60, clock), clock()
    await asyncio.sleep(45)
    assert await slots.end(asyncio.Event()) == 1
    assert clock() - began == pytest.approx(60)
    began = clock()
    assert await ReleaseSlot(0, clock).end(asyncio.Event()) == 0
    stopped = asyncio.Event()
    stopped.set()
    await ReleaseSlot(30, clock).end(stopped)
    assert clock() == began


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    """What the steps' slots go by: it passes as job code takes its time, and as an answer waits."""
    hours = Hours()

    def waited(seconds: float) -> asyncio.Timeout:
        hours.now += seconds
        return asyncio.timeout(0)

    monkeypatch.setattr(steps, "ReleaseSlot", partial(ReleaseSlot, clock=hours))
    monkeypatch.setattr(release_slot, "asyncio", SimpleNamespace(timeout=waited))
    return hours


async def measured(world: Any, hours: Hours, seconds: float, **plan: Any) -> tuple[float, Any]:
    """How long a step takes whose job code takes so long, and its receipt."""

    async def slow() -> Any:
        hours.now += seconds
        return await good()

    good, world.reply = world.reply, slow
    statement = world.plan(world.agreement(**({"release_slot": 1} if plan.get("slot_seconds") else {})), **plan)
    assert (await world.open(statement)).permitted
    began = hours.now
    receipt, _ = await world.invoke(statement)
    took = hours.now - began
    world.reply = good
    await world.line.close_job(statement.digest)
    return took, receipt


async def test_inv3_how_long_job_code_took_is_not_seen(world: Any, hours: Hours) -> None:
    """Steps of 0 and of 1.2 s leave in the same slot, and their receipts state the same length."""
    fast, one = await measured(world, hours, 0.0, slot_seconds=4)
    slow, other = await measured(world, hours, 1.2, slot_seconds=4)
    assert fast == slow == pytest.approx(4)
    assert one.outcome == other.outcome == "ok"
    assert one.ended - one.started == other.ended - other.started == timedelta(seconds=4)
    await world.line.close()


async def test_without_slots_it_is_seen_and_an_answer_waits_for_nothing(world: Any, hours: Hours) -> None:
    fast, _ = await measured(world, hours, 0.0)
    slow, _ = await measured(world, hours, 1.0)
    assert (fast, slow) == (0.0, pytest.approx(1.0))
    await world.line.close()


async def test_inv3_a_failure_leaves_in_a_slot_as_well(world: Any, hours: Hours) -> None:
    async def broken() -> Any:
        raise KeyongError("broken", code="app-exception")

    plan = world.plan(world.agreement(release_slot=1), slot_seconds=3)
    await world.open(plan)
    world.reply = broken
    began = hours.now
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "failed" and hours.now - began == pytest.approx(3)
    assert receipt.ended - receipt.started == timedelta(seconds=3)


async def test_inv1_a_plan_with_narrower_slots_than_the_agreement_demands_is_refused(world: Any) -> None:
    opened = await world.open(world.plan(world.agreement(release_slot=60), slot_seconds=5))
    assert (opened.permitted, opened.code) == (False, "release-slot")


@pytest.mark.parametrize("figure", [0.5, 0.1 + 0.2, 1e-300, 999999, -1, 123456.78901234567])
async def test_inv3_figures_of_any_length_leave_at_one_size(world: Any, content: Any, figure: float) -> None:
    async def reply() -> Any:
        return content(metrics={"metrics": {"loss": figure, "num-examples": 3}})

    world.reply = reply
    plan = world.plan(world.agreement(release_slot=1), slot_seconds=1, **EACH)
    await world.open(plan)
    _, answer = await world.invoke(plan)
    header = Invoked.from_bytes(answer.header)
    assert header.reply and len(header.reply) + len(header.padding) == FIXED + 2 * METRIC_TEXT_BYTES
    await world.line.close()


FIXED = len(
    '{"arrays":[["arrays",[["0","float32",[2]]]]],"configs":[],'
    '"metrics":[["metrics",[["loss",],["num-examples",]]]],"v":1}'
)


def test_without_padding_the_same_figures_have_other_sizes() -> None:
    short, long = (Content(metrics={"metrics": {"loss": value}}) for value in (0.5, 123456.78901234567))
    assert padding_of(short) != padding_of(long)
