"""Two of our own parties, from an offer in a catalog to jobs' right to run, and what both ledgers say of it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from federation.dataspace import (
    CounterpartyRefusedError,
    GatewayUnreachableError,
    NegotiationRow,
    Reactions,
    Terms,
    TransferRow,
)
from federation.dataspace.states import WrongStateError
from federation.dataspace.store import BusyError, NoSuchProcessError
from federation.holdings import Holdings, open_engine
from federation.statements import Agreement, Envelope
from keyong import dataspace
from tests.dataspace.world import CONSUMER, PROVIDER, Side, World, publish, terms


@pytest.fixture
def sides(world: World) -> Iterator[tuple[Side, Side]]:
    mill, lab = world[PROVIDER], world[CONSUMER]
    yield mill, lab
    for row in mill.party.store.offers():
        mill.party.store.withdraw(row.id)


def react(*sides: Side) -> int:
    """Let each party do what is due, until nothing is."""
    total = 0
    while taken := sum(Reactions(side.party).run() for side in sides):
        total += taken
    return total


def signed(side: Side, row: NegotiationRow) -> Agreement:
    held = side.party.holdings.get(row.agreement)
    assert held is not None
    return Agreement.read(Envelope.from_bytes(held.envelope))


def ended(mill: Side, lab: Side) -> None:
    """No negotiation or transfer of an earlier test is left to react to."""
    for side in (mill, lab):
        for kind in (NegotiationRow, TransferRow):
            for row in side.party.store.list(kind, open_only=True):
                side.party.store.change(row, datetime.now(UTC), state="TERMINATED", sending="")


def test_from_an_automatic_offer_to_a_live_grant(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    published = publish(mill, terms(), automatic=True)
    identity, taken = dataspace.offer_named(lab.party, PROVIDER, "passes", "")
    assert identity == published
    row = lab.negotiator.request(PROVIDER, taken, identity)
    assert row.state == "REQUESTED"
    react(mill, lab)
    mine, theirs = lab.negotiation(row.pid), mill.negotiation(row.peer_pid)
    assert (mine.state, theirs.state) == ("FINALIZED", "FINALIZED") and mine.agreement == theirs.agreement

    # One mechanism: the same statement, with both signatures, by the same entries; and suspended on both sides.
    for side in sides:
        held = side.party.holdings.get(mine.agreement)
        assert held is not None and held.state == "suspended"
        assert len(Envelope.from_bytes(held.envelope).signatures) == 2
        assert [one["digest"] for one in side.entries("agreement")].count(mine.agreement) == 1
        assert [one["state"] for one in side.entries("negotiation") if one["agreement"] == mine.agreement] == [
            "FINALIZED"
        ]
    assert [one["digest"] for one in mill.entries("offer")].count(mine.agreement) == 1

    held = lab.party.holdings.get(mine.agreement)
    assert held is not None
    transfer = lab.grantor.request(held)
    react(mill, lab)
    assert lab.transfer(transfer.pid).state == "STARTED"
    assert [side.party.holdings.state(mine.agreement) for side in sides] == ["in-force", "in-force"]

    lab.grantor.lead(lab.transfer(transfer.pid), "COMPLETED")
    assert [side.party.holdings.state(mine.agreement) for side in sides] == ["suspended", "suspended"]
    assert react(mill, lab) == 0  # a grant that is over is not begun again by itself
    for side in sides:
        states = [one["state"] for one in side.entries("transfer") if one["agreement"] == mine.agreement]
        assert states == ["STARTED", "COMPLETED"]


def test_without_automatic_a_person_decides(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    publish(mill, terms())
    identity, taken = dataspace.offer_named(lab.party, PROVIDER, "passes", "")
    row = lab.negotiator.request(PROVIDER, taken, identity)
    assert react(mill, lab) == 0 and lab.negotiation(row.pid).state == "REQUESTED"
    mill.negotiator.agree(mill.negotiation(row.peer_pid))
    react(mill, lab)
    assert lab.negotiation(row.pid).state == "FINALIZED"


def test_an_automatic_offer_is_given_as_it_stands_or_not_at_all(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    identity = publish(mill, terms(), automatic=True)
    row = lab.negotiator.request(PROVIDER, terms(count=100), identity)
    assert react(mill, lab) == 0 and lab.negotiation(row.pid).state == "REQUESTED"


def test_a_longer_time_cannot_be_asked_for_beside_an_automatic_offer(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    ours = terms()
    identity = publish(mill, ours, automatic=True)
    longer = Terms(ours.policy, "Passes", expires="2099-01-01T00:00:00Z")
    row = lab.negotiator.request(PROVIDER, longer, identity)
    react(mill, lab)
    done = lab.negotiation(row.pid)
    assert done.state == "FINALIZED"
    assert signed(mill, done).expires < datetime.now(UTC) + timedelta(days=31)


def test_haggling_ends_with_what_both_want(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    row = lab.negotiator.request(PROVIDER, terms(count=9), f"urn:uuid:{uuid.uuid4()}")
    mill.negotiator.counter(mill.negotiation(row.peer_pid), terms(count=2))
    lab.negotiator.counter(lab.negotiation(row.pid), terms(count=4))
    assert react(mill, lab) == 0  # the mill has not consented to four
    final = terms(count=3)
    mill.negotiator.counter(mill.negotiation(row.peer_pid), final)
    lab.negotiator.accept(lab.negotiation(row.pid))
    react(mill, lab)
    done = lab.negotiation(row.pid)
    assert done.state == "FINALIZED" and signed(lab, done).policy["permission"] == final.policy["permission"]


def test_a_provider_may_begin(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    row = mill.negotiator.offer(CONSUMER, terms())
    assert lab.negotiation(row.peer_pid).state == "OFFERED"
    assert react(mill, lab) == 0
    lab.negotiator.accept(lab.negotiation(row.peer_pid))
    react(mill, lab)
    assert mill.negotiation(row.pid).state == "FINALIZED"


def test_what_was_signed_in_a_negotiation_that_ended_is_worth_nothing(sides: tuple[Side, Side]) -> None:
    """The consumer keeps the provider's signature, adds its own, and mails it as any agreement: it stays revoked."""
    from federation import correspondence
    from federation.errors import VerificationError
    from federation.statements import add_signature

    mill, lab = sides
    ended(mill, lab)
    row = lab.negotiator.request(PROVIDER, terms(), f"urn:uuid:{uuid.uuid4()}")
    mill.negotiator.agree(mill.negotiation(row.peer_pid))
    made = lab.negotiation(row.pid)
    mill.negotiator.terminate(mill.negotiation(row.peer_pid), "no")
    assert lab.negotiation(row.pid).state == "TERMINATED"
    both = add_signature(Envelope.from_bytes(made.statement), lab.keys.statement)
    for side in sides:
        party = side.party
        with contextlib.suppress(VerificationError):  # refused, or known to be over: either way nothing comes of it
            correspondence.take(party.home, party.holdings, party.ledger, both, datetime.now(UTC))
        assert party.holdings.state(made.agreement) == "revoked"
        outcome = [one for one in side.entries("negotiation") if one["agreement"] == made.agreement]
        assert [one["state"] for one in outcome] == ["TERMINATED"]
        assert made.agreement in [one["agreement"] for one in side.entries("revocation")]


def test_a_lost_acknowledgement_is_made_up_for(world: World, sides: tuple[Side, Side]) -> None:
    """The provider took the message, its answer never came: said again, it is found to stand there already."""
    from federation.dataspace import Request, Response

    mill, lab = sides
    ended(mill, lab)
    row = lab.negotiator.request(PROVIDER, terms(), f"urn:uuid:{uuid.uuid4()}")
    mill.negotiator.counter(mill.negotiation(row.peer_pid), terms(count=2))
    lost = [True]

    def losing(request: Request) -> Response:
        answer = mill.endpoint.answer(request)
        return Response(502, b"") if request.method == "POST" and lost.pop() else answer

    world.links.of[PROVIDER] = losing
    with pytest.raises(GatewayUnreachableError):
        lab.negotiator.accept(lab.negotiation(row.pid))
    assert (lab.negotiation(row.pid).state, mill.negotiation(row.peer_pid).state) == ("OFFERED", "ACCEPTED")
    world.ours(PROVIDER)
    assert lab.negotiator.accept(lab.negotiation(row.pid)).state == "ACCEPTED"


def test_a_process_that_died_on_the_way_holds_nothing_up_for_ever(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    row = lab.negotiator.request(PROVIDER, terms(), f"urn:uuid:{uuid.uuid4()}")
    theirs = mill.negotiation(row.peer_pid)
    now = datetime.now(UTC)
    mill.party.store.begin(theirs, "OFFERED", now)
    with pytest.raises(BusyError):
        mill.negotiator.agree(mill.negotiation(theirs.pid))
    mill.party.store.change(theirs, now, sending_since="2026-01-01T00:00:00Z")
    assert mill.negotiator.agree(mill.negotiation(theirs.pid)).state == "AGREED"


def test_termination_holds_here_where_nobody_can_be_told(world: World, sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    row = lab.negotiator.request(PROVIDER, terms(), f"urn:uuid:{uuid.uuid4()}")
    del world.links.of[PROVIDER]
    moved, told = lab.negotiator.terminate(lab.negotiation(row.pid), "gone")
    assert (moved.state, told) == ("TERMINATED", False)
    with pytest.raises(WrongStateError):
        lab.negotiator.terminate(lab.negotiation(row.pid))


def test_a_stop_is_in_effect_though_nobody_can_be_told(world: World, sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    publish(mill, terms(), automatic=True)
    identity, taken = dataspace.offer_named(lab.party, PROVIDER, "passes", "")
    row = lab.negotiator.request(PROVIDER, taken, identity)
    react(mill, lab)
    agreement = lab.negotiation(row.pid).agreement
    held = lab.party.holdings.get(agreement)
    assert held is not None
    pid = lab.grantor.request(held).peer_pid
    react(mill, lab)
    del world.links.of[CONSUMER]
    with pytest.raises(GatewayUnreachableError):
        mill.grantor.lead(mill.transfer(pid), "SUSPENDED")
    assert mill.party.holdings.state(agreement) == "suspended"
    world.ours(CONSUMER)
    assert mill.grantor.lead(mill.transfer(pid), "SUSPENDED")[0].state == "SUSPENDED"


def test_a_grant_ends_with_its_agreement(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    publish(mill, terms(), automatic=True)
    identity, taken = dataspace.offer_named(lab.party, PROVIDER, "passes", "")
    row = lab.negotiator.request(PROVIDER, taken, identity)
    react(mill, lab)
    agreement = lab.negotiation(row.pid).agreement
    held = lab.party.holdings.get(agreement)
    assert held is not None
    transfer = lab.grantor.request(held)
    react(mill, lab)
    mill.party.holdings.move(agreement, "revoked")
    react(mill, lab)
    assert lab.transfer(transfer.pid).state == "TERMINATED"


def test_a_refusal_says_why_to_whoever_asked(sides: tuple[Side, Side]) -> None:
    mill, lab = sides
    ended(mill, lab)
    what = terms()
    unknown = {**what.policy, "target": "urn:keyong:dataset:mill:nothing"}
    with pytest.raises(CounterpartyRefusedError, match="no dataset nothing"):
        lab.negotiator.request(PROVIDER, Terms(unknown, "x"), f"urn:uuid:{uuid.uuid4()}")
    (failed,) = (row for row in lab.party.store.list(NegotiationRow) if row.reason == "it was not taken")
    assert failed.state == "TERMINATED"
    with pytest.raises(NoSuchProcessError):
        lab.party.store.find(NegotiationRow, "zzzz")


def test_what_is_kept_outlives_the_process(sides: tuple[Side, Side]) -> None:
    from federation.dataspace import DataspaceStore

    mill, lab = sides
    ended(mill, lab)
    row = lab.negotiator.request(PROVIDER, terms(), f"urn:uuid:{uuid.uuid4()}")
    engine = open_engine(lab.party.home.path / "store.db")
    again: Any = DataspaceStore(engine).find(NegotiationRow, row.pid)
    assert (again.state, again.peer_pid, again.on_table.digest) == ("REQUESTED", row.peer_pid, row.on_table.digest)
    assert Holdings(engine).state("sha256:" + "0" * 64) is None
    engine.dispose()
