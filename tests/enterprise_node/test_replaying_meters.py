"""What was used is added up anew from the entries (uses, seconds, bytes, money, rho); a record that says less is found."""

from __future__ import annotations

from typing import Any

import pytest

from federation.privacy import rho_text
from federation.statements import Envelope, Receipt
from keyong import replaying
from keyong.meters import Meters
from tests.enterprise_node.test_budgets import answer, noised
from tests.enterprise_node.test_replaying import changed, found, intents, judged


def entries(world: Any) -> list[Any]:
    ledger = world.record.ledger
    return [(entry, dict(ledger.fields(entry.index))) for entry in ledger.entries(0, ledger.size)]


@pytest.fixture
async def metered(world: Any) -> list[Any]:
    """Two jobs under an agreement that counts time, volume and money; three steps."""
    further = {"metered-time": "1h", "total-bytes": "100000000", "pay-amount": "10000"}
    agreement = world.agreement(cost="100", tariff="CNY; second 0.5; megabyte 2", further=further)
    first, second = (world.plan(agreement) for _ in range(2))
    for plan, number in ((first, 1), (first, 2), (second, 1)):
        await world.open(plan)
        receipt, _ = await world.invoke(plan, number)
        assert receipt.outcome == "ok"
    return entries(world)


async def test_what_was_metered_comes_out_the_same(metered: Any) -> None:
    again = judged(metered)
    assert again.findings == [] and again.same == 3
    assert not again._meters.blind


@pytest.mark.parametrize(
    ("operand", "less"), [("odrl:meteredTime", "PT1S"), ("fed:totalOutputBytes", "1"), ("odrl:payAmount", "0.01")]
)
async def test_a_step_that_was_judged_by_less_than_was_used_is_found(metered: Any, operand: str, less: str) -> None:
    last = intents(metered)[-1]
    was = next(one["left"] for one in last["decision"]["constraints"] if one["operand"] == operand)
    last["decision"] = changed(last["decision"], operand, left=less)
    assert found(judged(metered)) == [{operand}]
    (difference,) = judged(metered).findings[0].differences
    assert less in difference.recorded and was in difference.again


async def test_without_the_meters_such_a_record_would_pass(metered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    last = intents(metered)[-1]
    last["decision"] = changed(last["decision"], "odrl:payAmount", left="0.01")
    monkeypatch.setattr(replaying.Meters, "intent", lambda *_: {})
    assert judged(metered).findings == []


async def test_what_a_step_came_to_is_its_receipts_word(metered: Any) -> None:
    """A reservation that is not settled counts whole: the next step's figures are then others."""
    first = next(entry for entry, _ in metered if entry.kind == "outcome")
    without = [pair for pair in metered if pair[0].index != first.index]
    assert len(judged(without).findings) == 2


async def test_where_a_receipt_was_erased_nothing_is_said_of_meters(metered: Any) -> None:
    for entry, fields in metered:
        if entry.kind == "outcome":
            del fields["receipt"]
    again = judged(metered)
    assert again.findings == [] and again._meters.blind


async def test_rho_is_added_up_over_plans(world: Any, content: Any) -> None:
    world.reply = answer(content)
    agreement = world.agreement(rho="0.12")
    plan = noised(world, agreement)
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "ok"
    await world.line.close_job(plan.digest)
    other = noised(world, agreement)
    await world.open(other)
    receipt, _ = await world.invoke(other)
    assert receipt.outcome == "ok"
    history = entries(world)
    assert judged(history).findings == []
    meters = Meters()
    for entry, fields in history:
        if entry.kind == "intent":
            said = meters.intent(entry, fields, replaying.tariff_of(replaying.Agreement.read(agreement)))
        elif entry.kind == "outcome":
            meters.outcome(entry, Receipt.read(Envelope.from_bytes(fields["receipt"])))
        elif entry.kind == "budget":
            meters.budget(fields)
    (judgement,) = [one for one in receipt.decision.constraints if one.operand == "fed:rho"]
    assert judgement.left == rho_text(said["rho"]) != "0.1", "what the first plan gave back is free again"
    last = intents(history)[-1]
    last["decision"] = changed(last["decision"], "fed:rho", left="0.05")
    assert found(judged(history)) == [{"fed:rho"}]
