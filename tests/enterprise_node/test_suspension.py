"""inv1: a suspended agreement carries no job; what ran under it is ended at once, and goes on when it is resumed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from federation import correspondence
from federation.statements import Envelope, Suspension


def word(world: Any, agreement: Envelope, by: str, number: int, suspended: bool) -> Envelope:
    at = world.clock()
    said = Suspension(
        issued=at, expires=at + timedelta(days=1), agreement=agreement.digest, by=by, number=number, suspended=suspended
    )
    return said.seal(world.keys[by].statement)


def take(world: Any, envelope: Envelope) -> str:
    return correspondence.take(world.home, world.holdings, world.record.ledger, envelope, world.clock())[0]


@pytest.mark.parametrize("by", ["mill", "lab"])
async def test_inv1_a_step_at_work_ends_at_once_and_the_plan_goes_on_when_it_is_resumed(
    by: str, world: Any, content: Any
) -> None:
    agreement = world.agreement()
    plan = world.plan(agreement)
    began = asyncio.Event()

    async def endless() -> Any:
        began.set()
        await asyncio.sleep(3600)

    world.reply, usual = endless, world.reply
    await world.open(plan)
    step = asyncio.create_task(world.invoke(plan))
    await began.wait()
    assert take(world, word(world, agreement, by, 1, True)) == "suspended"
    await world.line.uphold()
    receipt, answer = await asyncio.wait_for(step, 30)
    assert (receipt.outcome, receipt.code) == ("killed", "agreement-suspended") and not answer.body
    assert (await world.open(plan)).code == "agreement-suspended"
    assert take(world, word(world, agreement, by, 2, False)) == "resumed"
    world.reply = usual
    assert (await world.open(plan)).permitted
    receipt, _ = await world.invoke(plan, attempt=2)
    assert receipt.outcome == "ok"
    assert world.record.uses(agreement.digest) == 1, "it is the same use"


async def test_both_sides_have_to_resume_and_an_older_word_counts_for_nothing(world: Any) -> None:
    agreement = world.agreement()
    resumed = word(world, agreement, "lab", 2, False)
    for by in ("mill", "lab"):
        assert take(world, word(world, agreement, by, 1, True)) == "suspended"
    assert take(world, resumed) == "resumed"
    assert world.holdings.state(agreement.digest) == "suspended", "the mill's own stands"
    assert take(world, word(world, agreement, "mill", 2, False)) == "resumed"
    assert world.holdings.state(agreement.digest) == "in-force"
    assert take(world, word(world, agreement, "lab", 3, True)) == "suspended"
    assert take(world, resumed) == "known", "played again"
    assert world.holdings.state(agreement.digest) == "suspended"
    assert take(world, agreement) == "known" and world.holdings.state(agreement.digest) == "suspended"


async def test_a_word_of_somebody_else_is_refused(world: Any) -> None:
    agreement = world.agreement()
    with pytest.raises(Exception, match="not between its author and us"):
        take(world, word(world, agreement, "inst", 1, True))
    assert world.holdings.state(agreement.digest) == "in-force"


async def test_a_store_that_forgot_is_told_by_the_ledger(world: Any) -> None:
    agreement = world.agreement()
    take(world, word(world, agreement, "lab", 1, True))
    world.holdings.pause(agreement.digest, "lab", 2, suspended=False)  # as an older store would say
    take(world, word(world, agreement, "lab", 3, True))
    world.holdings.move(agreement.digest, "in-force")
    correspondence.uphold_revocations(world.holdings, world.record.ledger)
    assert world.holdings.state(agreement.digest) == "suspended"


async def test_a_suspended_agreement_can_still_be_ended(world: Any) -> None:
    agreement = world.agreement()
    take(world, word(world, agreement, "lab", 1, True))
    world.holdings.move(agreement.digest, "revoked")
    take(world, word(world, agreement, "lab", 2, False))
    assert world.holdings.state(agreement.digest) == "revoked"
