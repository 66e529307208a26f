"""Mail: believed for its author's signature alone, and every change of state on record."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from federation import correspondence
from federation.crypto import SignatureError
from federation.errors import KeyongError
from federation.ledger import LedgerUnavailableError
from federation.policy import PolicyError
from federation.statements import (
    AgreementRequest,
    Envelope,
    ExpiredError,
    StatementError,
    UnknownMemberError,
    add_signature,
)
from federation.wire.member import read_mail
from federation.wire.messages import Envelopes, MailBox, MailItem, MailSince, MessageError, pack
from federation.wire.peer import Incoming


def take(party: Any, envelope: Envelope) -> tuple[str, str]:
    return correspondence.take(party.home, party.holdings, party.ledger, envelope, datetime.now(UTC))


def test_offer_agreement_revocation(parties: Any) -> None:
    mill, lab = parties.of["mill"], parties.of["lab"]
    offer = parties.agreement("mill")
    assert take(lab, offer) == ("offered", offer.digest) and take(lab, offer)[0] == "known"
    agreed = add_signature(offer, lab.keys.statement)
    assert take(mill, agreed)[0] == "in-force" and take(mill, agreed)[0] == "known"
    revocation = parties.revocation(agreed, "lab")
    assert take(mill, revocation)[0] == "revoked" and take(mill, revocation)[0] == "known"
    assert take(mill, agreed)[0] == "known" and mill.holdings.state(agreed.digest) == "revoked"
    assert [len(mill.entries(kind)) for kind in ("agreement", "revocation")] == [1, 1]


def test_an_offer_is_no_agreement_and_not_for_its_author(parties: Any) -> None:
    with pytest.raises(StatementError):
        take(parties.of["mill"], parties.agreement("mill"))
    with pytest.raises(SignatureError):
        take(parties.of["lab"], parties.agreement("lab"))
    with pytest.raises(StatementError):
        take(parties.of["inst"], parties.agreement("mill", "lab"))
    with pytest.raises(ExpiredError):
        take(parties.of["lab"], parties.agreement("mill", expires=datetime.now(UTC) - timedelta(seconds=1)))
    assert not any(party.holdings.list() for party in parties.of.values())


def test_without_the_signature_check_a_forged_agreement_would_be_in_force(
    parties: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from federation.statements import agreement as module

    forged = parties.agreement("lab")  # the mill never signed
    with pytest.raises(SignatureError):
        take(parties.of["mill"], forged)
    monkeypatch.setattr(module, "verify", lambda *_: None)
    assert take(parties.of["mill"], forged)[0] == "in-force"


def test_signatures_that_the_carrier_added_are_left_out(parties: Any) -> None:
    lab = parties.of["lab"]
    offer = parties.agreement("mill")
    broken = add_signature(parties.agreement("mill"), lab.keys.statement).signatures[1]
    meddled = Envelope(offer.payload_type, offer.payload, (*offer.signatures, broken))
    assert take(lab, meddled)[0] == "offered"
    held = Envelope.from_bytes(lab.holdings.get(offer.digest).envelope)
    assert held == offer
    add_signature(held, lab.keys.statement)  # and can be signed


def test_two_agreements_under_one_id_are_not_held(parties: Any) -> None:
    number = f"urn:uuid:{uuid.uuid4()}"
    take(parties.of["lab"], parties.agreement("mill", id=number))
    with pytest.raises(StatementError):
        take(parties.of["lab"], parties.agreement("mill", id=number, count=9))


def test_only_a_party_ends_an_agreement(parties: Any) -> None:
    mill = parties.of["mill"]
    agreed = parties.agreement("mill", "lab")
    take(mill, agreed)
    for bad in (parties.revocation(agreed, "inst"), parties.revocation(agreed, "lab", signer="inst")):
        with pytest.raises(KeyongError):
            take(mill, bad)
    assert mill.holdings.state(agreed.digest) == "in-force"


@pytest.mark.parametrize("age", [400, -400], ids=["old", "from the future"])
def test_neither_age_nor_a_wrong_clock_keeps_a_revocation_from_ending_an_agreement(parties: Any, age: int) -> None:
    mill = parties.of["mill"]
    agreed = parties.agreement("mill", "lab")
    take(mill, agreed)
    assert take(mill, parties.revocation(agreed, "lab", age=age))[0] == "revoked"


def test_a_crash_within_a_revocation_leaves_it_unusable_and_the_record_follows(
    parties: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = parties.of["mill"]
    agreed = parties.agreement("mill", "lab")
    take(mill, agreed)
    revocation = parties.revocation(agreed, "lab")

    def failing(*_: Any, **__: Any) -> None:
        raise LedgerUnavailableError("no room")

    monkeypatch.setattr(mill.ledger, "append", failing)
    with pytest.raises(LedgerUnavailableError):
        take(mill, revocation)
    monkeypatch.undo()
    assert mill.holdings.state(agreed.digest) == "revoked" and not mill.entries("revocation")
    assert take(mill, revocation)[0] == "revoked" and len(mill.entries("revocation")) == 1


def test_an_agreement_whose_entry_cannot_be_written_is_not_in_force(
    parties: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = parties.of["mill"]

    def failing(*_: Any, **__: Any) -> None:
        raise LedgerUnavailableError("no room")

    monkeypatch.setattr(mill.ledger, "append", failing)
    with pytest.raises(LedgerUnavailableError):
        take(mill, parties.agreement("mill", "lab"))
    assert not mill.holdings.list()


def request(parties: Any, policy: dict[str, Any]) -> Envelope:
    at = datetime.now(UTC)
    return AgreementRequest(
        issued=at,
        expires=at + timedelta(days=1),
        id=f"urn:uuid:{uuid.uuid4()}",
        provider="mill",
        consumer="lab",
        dataset="passes",
        title="Please",
        policy=policy,
    ).seal(parties.of["lab"].keys.statement)


def test_a_request_grants_nothing_and_must_be_readable(parties: Any) -> None:
    from federation.statements import Agreement

    good = request(parties, Agreement.read(parties.agreement("mill")).policy)
    mill = parties.of["mill"]
    assert take(mill, good)[0] == "requested" and take(mill, good)[0] == "known"
    assert not mill.entries("agreement")
    with pytest.raises(PolicyError):
        take(mill, request(parties, {"@type": "Agreement"}))
    with pytest.raises(StatementError):
        take(parties.of["lab"], good)


# -- reading it -------------------------------------------------------------------------------------------------------


class Coordinator:
    """Answers as a coordinator does, from lists."""

    def __init__(self, mail: list[MailItem], rosters: list[Envelope] | None = None) -> None:
        self.mail, self.rosters, self.asked = mail, rosters or [], 0

    async def call(self, method: str, header: bytes, body: Any = (), *, timeout: float | None = None) -> Incoming:
        if method == "roster.get":
            self.asked += 1
            return self._answer(Envelopes(envelopes=tuple(pack(one) for one in self.rosters)))
        after = MailSince.from_bytes(header).after
        return self._answer(MailBox(items=tuple(item for item in self.mail if item.number > after)))

    def _answer(self, message: Any) -> Incoming:
        return Incoming("", message.to_bytes(), memoryview(b""))


def item(number: int, envelope: Envelope) -> MailItem:
    return MailItem(number=number, sender="x", arrived="", envelope=pack(envelope))


def read(party: Any, coordinator: Any) -> int:
    return asyncio.run(read_mail(coordinator, party.home, party.holdings, party.ledger))


def test_mail_that_does_not_hold_is_passed_over_and_what_follows_is_taken(parties: Any) -> None:
    mail = [item(3, parties.agreement("lab")), item(7, parties.agreement("mill"))]
    assert read(parties.of["lab"], Coordinator(mail)) == 1
    assert parties.of["lab"].holdings.mail_read() == 7


def test_mail_from_a_member_of_a_newer_roster_is_taken_after_fetching_it(parties: Any, newcomer: Any) -> None:
    keys, entry = newcomer
    at = datetime.now(UTC)
    hello = AgreementRequest(
        issued=at,
        expires=at + timedelta(days=1),
        id=f"urn:uuid:{uuid.uuid4()}",
        provider="mill",
        consumer="new",
        dataset="passes",
        title="Please",
        policy=__import__("federation.statements", fromlist=["Agreement"])
        .Agreement.read(parties.agreement("mill"))
        .policy,
    ).seal(keys.statement)
    mill = parties.of["mill"]
    with pytest.raises(UnknownMemberError):
        take(mill, hello)
    coordinator = Coordinator([item(1, hello)], [parties.roster(*parties.members.values(), entry)])
    assert read(mill, coordinator) == 1
    assert coordinator.asked == 2  # for the rosters, and whether there are more
    assert mill.home.history.latest.version == 2 and len(mill.entries("roster")) == 1


def test_mail_stays_unread_while_our_own_record_cannot_be_kept(parties: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mill = parties.of["mill"]

    def failing(*_: Any, **__: Any) -> None:
        raise LedgerUnavailableError("no room")

    coordinator = Coordinator([item(1, parties.agreement("mill", "lab"))])
    monkeypatch.setattr(mill.ledger, "append", failing)
    with pytest.raises(LedgerUnavailableError):
        read(mill, coordinator)
    assert mill.holdings.mail_read() == 0
    monkeypatch.undo()
    assert read(mill, coordinator) == 1


def test_a_coordinator_whose_numbers_do_not_rise_does_not_hold_us_for_ever(parties: Any) -> None:
    class Looping(Coordinator):
        async def call(self, method: str, header: bytes, body: Any = (), *, timeout: float | None = None) -> Incoming:
            return self._answer(MailBox(items=tuple(self.mail)))

    with pytest.raises(MessageError):
        read(parties.of["lab"], Looping([item(1, parties.agreement("mill"))]))
