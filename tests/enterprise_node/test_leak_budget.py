"""The leak budget: computed before, reserved with the first step, drawn, settled, never over."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from enterprise_node import leaks
from enterprise_node.recovery import close_open_steps
from federation.secagg import OUTCOME_BITS, Layout, job_bits, reply_bits, step_bits, worst_bits
from federation.secagg.reply import reply_bytes, reply_header
from federation.statements import JobPlan, StageOutput

SENT = {"arrays": {"0": np.zeros(2, dtype=np.float32)}}


def bits(plan: Any) -> tuple[int, int]:
    """Bits of one step, and of the whole job."""
    statement = JobPlan.read(plan)
    layout = Layout.derive(SENT, statement.outputs.train)
    return step_bits(statement, layout), job_bits(statement, reply_bits(statement, layout), 0)


def test_the_bits_of_a_reply_are_those_of_its_vectors(world: Any) -> None:
    plan = JobPlan.read(world.plan(world.agreement()))
    layout = Layout.derive(SENT, plan.outputs.train)
    whole = reply_bytes(layout, plan.encoding) - len(reply_header(layout, plan.encoding))
    assert reply_bits(plan, layout) == 8 * whole == 64 * (2 + 3 + 2)
    assert step_bits(plan, layout) == reply_bits(plan, layout) + 3
    each = plan.model_copy(update={"aggregation": "each"})
    assert reply_bits(each, layout) == 2 * 32 + 2 * 64
    assert job_bits(plan, 448, 0) == 5 * (448 + 9)
    both = plan.model_copy(update={"actions": ("fed:train", "fed:evaluate")})
    assert job_bits(both, 448, 100) == 5 * 448 + 6 * 100 + 11 * 9


def test_a_plan_that_does_not_say_is_bounded_by_its_largest_reply(world: Any) -> None:
    plan = JobPlan.read(world.plan(world.agreement()))
    assert worst_bits(plan) >= 5 * 64 * plan.outputs.maximal_bytes
    assert worst_bits(plan.model_copy(update={"leak_bits": 77})) == 77
    only = plan.model_copy(
        update={
            "outputs": plan.outputs.model_copy(
                update={"train": StageOutput(sent=False, metrics=plan.outputs.train.metrics)}
            )
        }
    )
    assert worst_bits(only) == 5 * (64 * (3 + 2) + 9)


async def test_each_receipt_states_what_left_and_the_ledger_adds_it_up(world: Any, content: Any) -> None:
    plan = world.plan(agreement := world.agreement())
    step, _ = bits(plan)
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.leak_bits == step

    async def diverged() -> Any:
        return content(float("nan"))

    world.reply = diverged
    receipt, _ = await world.invoke(plan, 2)
    assert (receipt.code, receipt.leak_bits) == ("output-refused", OUTCOME_BITS)
    assert world.record.leak_taken(agreement.digest) == step + OUTCOME_BITS


async def test_inv1_a_job_that_could_carry_more_than_the_agreement_permits_is_denied_and_costs_nothing(
    world: Any,
) -> None:
    _, job = bits(world.plan(world.agreement()))
    agreement = world.agreement(max_leak_bits=2 * job - 1)
    one, other = (world.plan(agreement, leak_bits=job) for _ in range(2))
    assert (await world.open(one)).permitted and (await world.open(other)).permitted
    receipt, _ = await world.invoke(one)
    judged = [found for found in receipt.decision.constraints if found.operand == "fed:maxLeakBits"]
    assert receipt.outcome == "ok" and [found.left for found in judged] == [str(job)]
    denied, _ = await world.invoke(other)
    assert (denied.outcome, denied.code, denied.intent) == ("denied", "leak-budget", -1)
    assert world.record.leak_taken(agreement.digest) == job and world.record.uses(agreement.digest) == 1
    # What the first did not draw is free again when it is over, and then there is room.
    await world.line.close_job(one.digest)
    assert world.record.leak_taken(agreement.digest) == receipt.leak_bits
    (settled,) = world.entries("leak")
    assert (settled["reserved"], settled["drawn"]) == (job, receipt.leak_bits)
    assert (await world.invoke(other))[0].outcome == "ok"
    await world.line.close()


async def test_two_plans_at_once_cannot_both_have_the_last_bits(world: Any) -> None:
    _, job = bits(world.plan(world.agreement()))
    agreement = world.agreement(max_leak_bits=job)
    plans = [world.plan(agreement, leak_bits=job) for _ in range(4)]
    for plan in plans:
        assert (await world.open(plan)).permitted
    receipts = [one for one, _ in await asyncio.gather(*(world.invoke(plan) for plan in plans))]
    assert sorted(receipt.outcome for receipt in receipts) == ["denied", "denied", "denied", "ok"]
    assert world.record.leak_taken(agreement.digest) <= job
    await world.line.close()


async def test_without_the_reservation_all_of_them_would_be_let_through(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "taken", lambda *_, **__: 0)
    _, job = bits(world.plan(world.agreement()))
    agreement = world.agreement(max_leak_bits=job)
    plans = [world.plan(agreement, leak_bits=job) for _ in range(2)]
    for plan in plans:
        await world.open(plan)
    assert [(await world.invoke(plan))[0].outcome for plan in plans] == ["ok", "ok"]
    await world.line.close()


async def test_inv3_a_step_beyond_what_its_plan_states_is_denied(world: Any) -> None:
    step, _ = bits(world.plan(world.agreement()))
    plan = world.plan(agreement := world.agreement(), leak_bits=step + 1)
    await world.open(plan)
    assert (await world.invoke(plan))[0].outcome == "ok"
    denied, _ = await world.invoke(plan, 2)
    assert (denied.outcome, denied.code) == ("denied", "leak-budget")
    assert world.record.leak_taken(agreement.digest) == step + 1  # reserved until it is over
    await world.line.close()


async def test_a_crash_keeps_the_reservation_and_the_step_is_settled_with_its_outcome(world: Any) -> None:
    _, job = bits(world.plan(world.agreement()))
    agreement = world.agreement(max_leak_bits=job)
    plan = world.plan(agreement, leak_bits=job)
    await world.open(plan)
    running = asyncio.Event()

    async def endless() -> Any:
        running.set()
        await asyncio.Event().wait()

    world.reply = endless
    asking = asyncio.create_task(world.invoke(plan))
    await running.wait()
    assert world.record.leak_taken(agreement.digest) == job
    await close_open_steps(world.record, world.home.key("statement"), "mill", world.clock())
    assert world.record.leak_taken(agreement.digest) == job
    world.line.jobs[plan.digest].stop("cancelled")
    await asyncio.gather(asking, return_exceptions=True)
    await world.line.close()
