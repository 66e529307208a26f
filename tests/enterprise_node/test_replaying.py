"""Every decision that a node records comes out the same when it is judged again from the entries alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from enterprise_node.approvals import Approvals
from federation import correspondence
from federation.ledger import Entry
from federation.statements import Revocation
from keyong.replaying import DecisionReplay

COUNT = 2


@pytest.fixture
async def history(world: Any) -> list[tuple[Entry, dict[str, Any]]]:
    """Two uses of an agreement for two, one of them with two rounds; refusals by three clauses and by one check."""
    agreement = world.agreement(count=COUNT, columns=["x"])
    first, second, third = (world.plan(agreement) for _ in range(3))
    for plan, number in ((first, 1), (first, 2), (second, 1)):
        await world.open(plan)
        receipt, _ = await world.invoke(plan, number)
        assert receipt.outcome == "ok"
    assert (await world.open(third)).code == "count"
    assert (await world.open(world.plan(agreement, purpose="fed:Marketing"))).code == "purpose"
    assert (await world.open(world.plan(world.agreement(min_participants=3)))).code == "min-participants"
    await world.invoke(first, 3, signer="other")
    ledger = world.record.ledger
    return [(entry, dict(ledger.fields(entry.index))) for entry in ledger.entries(0, ledger.size)]


def judged(history: list[tuple[Entry, dict[str, Any]]]) -> DecisionReplay:
    again = DecisionReplay()
    for entry, fields in history:
        again.on_entry(entry, fields)
    return again


def found(again: DecisionReplay) -> list[set[str]]:
    return [{difference.what for difference in one.differences} for one in again.findings]


def intents(history: list[tuple[Entry, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [fields for entry, fields in history if entry.kind == "intent"]


def changed(decision: Mapping[str, Any], operand: str, **change: Any) -> dict[str, Any]:
    """The decision, with one constraint of it as somebody would like to have judged it."""
    constraints = [one | change if one["operand"] == operand else one for one in decision["constraints"]]
    return {**decision, "constraints": constraints}


async def test_what_the_node_decided_comes_out_the_same(history: Any) -> None:
    again = judged(history)
    assert again.findings == [] and again.erased == []
    assert again.same == 3 + 3
    assert dict(again.refused) == {"signature": 1}


async def test_a_permit_that_no_clause_gives_is_found(history: Any) -> None:
    fields = intents(history)[0]
    fields["purpose"] = "fed:Marketing"
    assert found(judged(history)) == [{"permit", "rule", "odrl:purpose"}]


async def test_a_record_made_to_fit_its_permit_is_found_too(history: Any) -> None:
    """Entry and record agree with one another, and the agreement with neither."""
    fields = intents(history)[0]
    fields["purpose"] = "fed:Marketing"
    fields["decision"] = changed(fields["decision"], "odrl:purpose", left="fed:Marketing")
    assert found(judged(history)) == [{"permit", "rule", "odrl:purpose"}]


async def test_uses_are_counted_anew_from_the_entries(history: Any) -> None:
    last = intents(history)[-1]
    last["decision"] = changed(last["decision"], "odrl:count", left="1")
    assert found(judged(history)) == [{"odrl:count"}]


async def test_a_denial_that_the_agreement_would_have_permitted_is_found(history: Any) -> None:
    """Without the two uses on record, the third plan had no reason to be refused."""
    without = [(entry, fields) for entry, fields in history if entry.kind != "intent"]
    again = judged(without)
    assert found(again) == [{"permit", "rule", "odrl:count"}, {"odrl:count"}]
    assert (again.findings[0].differences[0].recorded, again.findings[0].differences[0].again) == ("deny", "permit")


async def test_erased_fields_are_reported_as_erased(history: Any) -> None:
    del intents(history)[0]["decision"]
    again = judged(history)
    assert len(again.erased) == 1 and again.findings == []
    for entry, fields in history:
        if entry.kind == "agreement":
            del fields["agreement"]
    again = judged(history)
    assert len(again.erased) == 6 and again.same == 0 and again.findings == []


async def test_a_permit_without_an_agreement_on_record_is_found(history: Any) -> None:
    without = [(entry, fields) for entry, fields in history if entry.kind != "agreement"]
    assert found(judged(without)) == [{"agreement"}] * 6


async def test_a_permit_after_the_revocation_is_found(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's own checks taken away, a step runs under a revoked agreement; the replay says so."""
    agreement = world.agreement()
    plan = world.plan(agreement)
    await world.open(plan)
    revocation = Revocation(
        issued=world.clock(), expires=world.clock().replace(year=2100), agreement=agreement.digest, by="lab"
    )
    envelope = revocation.seal(world.keys["lab"].statement)
    correspondence.revoke(world.holdings, world.record.ledger, envelope, revocation)
    monkeypatch.setattr(world.line._grounds, "check_in_force", lambda job: None)
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "ok"
    ledger = world.record.ledger
    again = judged([(entry, dict(ledger.fields(entry.index))) for entry in ledger.entries(0, ledger.size)])
    assert found(again) == [{"agreement"}]


async def test_a_permit_that_rests_on_an_approval_is_judged_by_the_entry_that_grants_it(world: Any) -> None:
    plan = world.plan(world.agreement(approval=True, review=False, max_leak_bits=10**6), leak_bits=10_000)
    assert (await world.open(plan)).code == "approval"
    approvals = Approvals(world.home, world.record.ledger)
    approvals.grant(approvals.known()[0], "", world.clock())
    assert (await world.open(plan)).permitted
    assert (await world.invoke(plan))[0].outcome == "ok"
    await world.line.close()
    ledger = world.record.ledger
    history = [(entry, dict(ledger.fields(entry.index))) for entry in ledger.entries(0, ledger.size)]
    assert judged(history).findings == []
    withdrawn = [
        (entry, fields | {"state": "withdrawn"} if entry.kind == "approval" else fields) for entry, fields in history
    ]
    assert found(judged(withdrawn)) == [{"duty"}]
    without = [pair for pair in history if pair[0].kind != "approval"]
    assert found(judged(without)) == [{"duty"}]
    sealed = [(entry, {} if entry.kind == "approval" else fields) for entry, fields in history]
    assert judged(sealed).findings == []
