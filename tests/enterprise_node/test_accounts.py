"""A month's statement comes out of a ledger alone, and the consumer's own figures are the provider's."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from decimal import Decimal
from typing import Any

from federation.policy import tariff_of
from federation.statements import Agreement, Envelope, Receipt
from keyong.account_page import page
from keyong.accounts import COLUMNS, Accounts, csv_rows, month_of
from keyong.replaying import DecisionReplay
from keyong.text import speaking


async def used(world: Any) -> tuple[Any, list[bytes]]:
    """An agreement with a tariff, used by one job of two steps and one of one; the receipts as answered."""
    agreement = world.agreement(cost="100", tariff="CNY; second 0.5; megabyte 2", count=2)
    receipts = []
    for rounds in (2, 1):
        plan = world.plan(agreement)
        await world.open(plan)
        for number in range(1, rounds + 1):
            receipt, _ = await world.invoke(plan, number)
            receipts.append(receipt)
    await world.open(world.plan(agreement))  # denied: the count is used up
    return agreement, receipts


def provider_side(world: Any) -> Accounts:
    found, ledger = Accounts(), world.record.ledger
    for entry in ledger.entries(0, ledger.size):
        found.on_entry(entry, ledger.fields(entry.index))
    return found


async def test_both_sides_come_to_the_same_figure(world: Any) -> None:
    agreement, receipts = await used(world)
    (ours,) = provider_side(world).accounts()
    theirs = Accounts()
    ledger = world.record.ledger
    for entry in ledger.entries(0, ledger.size):  # what the consumer's ledger holds as well: agreement and plans
        fields = ledger.fields(entry.index)
        if entry.kind in ("agreement", "intent"):
            theirs.on_entry(entry, fields)
    for entry in ledger.find(kind="outcome"):
        theirs.add(Envelope.from_bytes(ledger.fields(entry.index)["receipt"]))
    (same,) = theirs.accounts()
    assert same.figure == ours.figure
    assert (ours.uses, ours.seconds) == (2, sum(one.metered.seconds for one in receipts))
    assert ours.bytes == sum(one.output_bytes for one in receipts)
    assert ours.amount == 200 + Decimal("0.5") * ours.seconds + Decimal(2) * ours.bytes / 1_000_000
    assert ours.amount == tariff_of(Agreement.read(agreement)).amount(ours.uses, ours.seconds, ours.bytes)
    assert [job.uses for job in ours.jobs] == [1, 1] and ours.jobs[0].rows == "0-10"


async def test_a_receipt_that_is_left_out_is_another_figure_and_is_missed(world: Any) -> None:
    await used(world)
    whole = provider_side(world)
    short, ledger = Accounts(), world.record.ledger
    rows = []
    for entry in ledger.entries(0, ledger.size):
        fields = ledger.fields(entry.index)
        if entry.kind == "outcome":
            rows.append([entry.index, Envelope.from_bytes(fields["receipt"]).digest])
        if entry.kind != "outcome" or len(rows) > 1:
            short.on_entry(entry, fields)
    short.on_entry(replace(entry, kind="receipts"), {"receipts": rows})
    assert short.accounts()[0].figure != whole.accounts()[0].figure
    assert short.missing == {rows[0][1]}


async def test_what_was_refused_before_it_began_costs_nothing(world: Any) -> None:
    agreement = world.agreement(purposes=["fed:Research"], cost="100", tariff="CNY")
    await world.open(world.plan(agreement))
    assert provider_side(world).accounts() == []


async def test_csv_and_pages_say_the_same_in_both_languages(world: Any) -> None:
    await used(world)
    accounts = provider_side(world).accounts()
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *csv_rows(accounts)])
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert sum(Decimal(row["amount"]) for row in rows) == accounts[0].amount
    assert {row["currency"] for row in rows} == {"CNY"}
    assert rows[0]["month"] == month_of(world.clock())
    for lang, word in (("en", "Statement of use"), ("zh", "使用结算单")):
        with speaking(lang):
            shown = page(accounts, {"mill": "Mill Ltd"})
        assert word in shown and accounts[0].figure in shown and f"{accounts[0].amount:f} CNY" in shown
        assert "<script" not in shown and "http" not in shown
    with speaking("en"):
        assert "<b>" not in page([], {}) and "Nothing was used." in page([], {})


async def test_a_title_cannot_bring_markup_into_a_page(world: Any) -> None:
    await used(world)
    (account,) = provider_side(world).accounts()
    assert "<img" not in page([replace(account, title="<img src=x onerror=alert(1)>")], {})


async def test_metered_decisions_replay_as_they_were(world: Any) -> None:
    await used(world)
    again, ledger = DecisionReplay(), world.record.ledger
    for entry in ledger.entries(0, ledger.size):
        again.on_entry(entry, ledger.fields(entry.index))
    assert again.findings == [] and again.same == 4


def test_receipts_from_before_say_nothing_of_meters() -> None:
    assert "metered" in Receipt.LATER
