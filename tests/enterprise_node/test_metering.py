"""inv1: time, volume and money under an agreement are reserved before a step, settled after it, and never overspent."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from enterprise_node import attributes, metering
from enterprise_node.recovery import close_open_steps
from enterprise_node.step_meter import StepMeter
from federation import obligations
from federation.policy import Usage
from federation.statements import Fulfilment, Metered


def usage(world: Any, agreement: Any) -> Usage:
    with world.record.ledger.reader() as connection:
        return metering.usage(connection, agreement.digest)


async def test_a_step_reserves_before_it_runs_and_settles_to_what_its_receipt_says(world: Any, content: Any) -> None:
    agreement = world.agreement(further={"metered-time": "1h", "total-bytes": "100000000"})
    plan = world.plan(agreement)
    seen: list[Usage] = []

    async def looks() -> Any:
        seen.append(usage(world, agreement))
        return content()

    world.reply = looks
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "ok"
    # Twice the time that a start and a step may take, within the hour; eight bytes an element and the gate's room.
    assert seen == [Usage(1, 2 * (120 + 60), 8 * 2 + 2**20)]
    assert 1 <= receipt.metered.seconds < 60 and receipt.metered.bytes == receipt.output_bytes
    assert usage(world, agreement) == Usage(1, receipt.metered.seconds, receipt.output_bytes)
    assert world.entries("intent")[0]["metered"] == {"seconds": 360, "bytes": seen[0].bytes}


async def test_where_nothing_is_counted_receipts_are_as_they_were(world: Any) -> None:
    plan = world.plan(agreement := world.agreement())
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.metered is None and b"metered" not in receipt.payload()
    assert "metered" not in world.entries("intent")[0] and usage(world, agreement) == Usage(1, 0, 0)


async def test_inv1_the_last_seconds_end_a_step_and_then_the_clause_denies(world: Any) -> None:
    agreement = world.agreement(further={"metered-time": "1s"})
    plan = world.plan(agreement)

    async def endless() -> Any:
        await asyncio.sleep(3600)

    world.reply = endless
    await world.open(plan)
    receipt, answer = await world.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("killed", "metered-time") and not answer.body
    assert receipt.metered == Metered(seconds=1, bytes=0)
    denied = await world.open(world.plan(agreement))
    assert (denied.permitted, denied.code) == (False, "metered-time")
    assert usage(world, agreement) == Usage(1, 1, 0), "a denial costs nothing"


async def test_inv1_two_steps_at_once_cannot_both_take_what_is_left(world: Any, content: Any) -> None:
    agreement = world.agreement(further={"metered-time": "10m"}, count=None)
    plans = [world.plan(agreement) for _ in range(3)]
    release = asyncio.Event()

    async def waits() -> Any:
        await release.wait()
        return content()

    world.reply = waits
    for plan in plans:
        await world.open(plan)
    first = asyncio.create_task(world.invoke(plans[0]))
    while usage(world, agreement).seconds == 0:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(world.invoke(plans[1]))
    while usage(world, agreement).seconds == 360:
        await asyncio.sleep(0.01)
    assert usage(world, agreement).seconds == 600  # the second was given what the first left
    denied, _ = await world.invoke(plans[2])
    assert (denied.outcome, denied.code) == ("denied", "metered-time")
    release.set()
    receipts = [(await one)[0] for one in (first, second)]
    assert [one.outcome for one in receipts] == ["ok", "ok"]
    assert usage(world, agreement).seconds == sum(one.metered.seconds for one in receipts) < 600
    assert usage(world, agreement).uses == 2, "the denied plan took no use"


async def test_money_is_what_the_tariff_says_of_uses_seconds_and_bytes(world: Any) -> None:
    agreement = world.agreement(cost="100", tariff="CNY; second 0.5", further={"pay-amount": "250"})
    plan = world.plan(agreement)
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    judged = next(one for one in receipt.decision.constraints if one.operand == "odrl:payAmount")
    # 100 for the use, and as many half yuan as the ceiling leaves: 300 of the 360 seconds that the step might take.
    assert (judged.left, judged.right) == ("250", "250") and world.entries("intent")[0]["metered"]["seconds"] == 300
    denied = await world.open(world.plan(agreement, rounds=1))
    assert denied.permitted  # 100.50 were spent, and another use leaves 49.50 for seconds
    last = world.plan(agreement)
    await world.open(last)
    await world.invoke(last)
    assert (await world.open(world.plan(agreement))).code == "pay-amount"


async def test_inv1_a_crash_keeps_what_was_reserved(world: Any) -> None:
    agreement = world.agreement(further={"metered-time": "1h"})
    plan = world.plan(agreement)

    async def endless() -> Any:
        await asyncio.sleep(3600)

    world.reply = endless
    await world.open(plan)
    step = asyncio.create_task(world.invoke(plan))
    while usage(world, agreement).seconds == 0:
        await asyncio.sleep(0.01)
    # A process that comes after this one finds an INTENT without an OUTCOME.
    await close_open_steps(world.record, world.keys["mill"].statement, "mill", world.clock())
    assert usage(world, agreement).seconds == 360
    await world.line.close()
    await asyncio.gather(step, return_exceptions=True)
    assert usage(world, agreement).seconds == 360


async def test_time_since_the_first_and_since_the_last_use(world: Any) -> None:
    agreement = world.agreement(further={"elapsed-time": "2h", "interval": "30m"})
    one = world.plan(agreement)
    await world.open(one)
    assert (await world.invoke(one))[0].outcome == "ok"
    assert (await world.open(world.plan(agreement))).code == "time-interval"
    world.clock.ahead = timedelta(minutes=40)
    assert (await world.invoke(one, 2))[0].outcome == "ok", "a job that goes on keeps the interval it began with"
    assert (await world.open(world.plan(agreement))).permitted
    world.clock.ahead = timedelta(hours=3)
    assert (await world.open(world.plan(agreement))).code == "elapsed-time"


async def test_inv1_a_clock_that_was_set_back_denies(world: Any) -> None:
    agreement = world.agreement(further={"elapsed-time": "2h"})
    plan = world.plan(agreement, expires=world.clock() + timedelta(hours=12))
    await world.open(plan)
    assert (await world.invoke(plan))[0].outcome == "ok"
    world.clock.ahead = timedelta(seconds=-60)  # within what two clocks may differ, so no statement is refused for it
    receipt, _ = await world.invoke(plan, 2)
    assert (receipt.outcome, receipt.code) == ("denied", "elapsed-time")


async def test_the_meter_follows_no_clock_that_jumps(world: Any, content: Any) -> None:
    agreement = world.agreement(further={"metered-time": "1h"})
    plan = world.plan(agreement)

    async def jumps() -> Any:
        world.clock.ahead = timedelta(hours=5)
        return content()

    world.reply = jumps
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.metered is not None and receipt.metered.seconds < 3600


def test_a_meter_charges_whole_slots_and_never_more_than_was_reserved() -> None:
    now = [0.0]
    meter = StepMeter(Metered(seconds=100, bytes=0), slot_seconds=30, clock=lambda: now[0])
    now[0] = 31.0
    assert meter.left == 69.0 and meter.charge(5) == Metered(seconds=60, bytes=5)
    now[0] = 99.0
    assert meter.charge(5).seconds == 60, "what it waits for afterwards is not counted"
    late = StepMeter(Metered(seconds=100, bytes=0), clock=lambda: now[0])
    now[0] = 1000.0
    assert late.charge(0).seconds == 100


async def test_regions_industries_and_events_are_the_owners_word(world: Any) -> None:
    terms = {"region": "CN", "industry": "C31", "event": "tested"}
    agreement, ledger = world.agreement(further=terms), world.record.ledger
    assert (await world.open(world.plan(agreement))).code == "spatial"
    attributes.state(ledger, "place", "DE-BY")
    attributes.state(ledger, "industry", "C3130", "lab")
    attributes.state(ledger, "event", "event:tested", "mill-b")
    assert (await world.open(world.plan(agreement))).code == "spatial"
    attributes.state(ledger, "place", "CN-31")
    assert (await world.open(world.plan(agreement))).code == "event", "it was stated of another"
    attributes.state(ledger, "event", "event:tested")
    plan = world.plan(agreement)
    assert (await world.open(plan)).permitted
    attributes.withdraw(ledger, "event", "event:tested")
    receipt, _ = await world.invoke(plan)
    assert (receipt.outcome, receipt.code) == ("denied", "event")


async def test_a_duty_is_pending_then_overdue_and_the_consumers_word_settles_it(world: Any) -> None:
    agreement = world.agreement(further={"delete-within": "1h"}, expires=world.clock() + timedelta(days=5))
    plan = world.plan(agreement)
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "ok"
    (owed,) = obligations.obligations(world.record.ledger, agreement.digest)
    assert (owed.plan, owed.state) == (plan.digest, "pending")
    assert world.entries("intent")[0]["duties"] == [{"duty": owed.duty, "due": owed.due}]
    assert (await world.open(world.plan(agreement))).permitted, "what is pending permits"
    world.clock.ahead = timedelta(hours=2)
    assert (await world.open(world.plan(agreement))).code == "delete"
    fulfil(world, agreement, "lab", "odrl:delete")
    assert (await world.open(world.plan(agreement))).permitted


async def test_a_payment_that_is_only_claimed_does_not_count(world: Any) -> None:
    agreement = world.agreement(further={"compensate-within": "1h", "compensate-amount": "500"})
    plan = world.plan(agreement)
    await world.open(plan)
    await world.invoke(plan)
    world.clock.ahead = timedelta(hours=2)
    fulfil(world, agreement, "lab", "odrl:compensate")
    (owed,) = obligations.obligations(world.record.ledger, agreement.digest)
    assert owed.state == "claimed"
    assert (await world.open(world.plan(agreement))).code == "compensate"
    fulfil(world, agreement, "mill", "odrl:compensate")
    assert (await world.open(world.plan(agreement))).permitted


def fulfil(world: Any, agreement: Any, by: str, duty: str) -> None:
    at = world.clock()
    said = Fulfilment(issued=at, expires=at + timedelta(days=1), agreement=agreement.digest, by=by, duty=duty)
    obligations.fulfil(world.record.ledger, said.seal(world.keys[by].statement), said, "mill")
