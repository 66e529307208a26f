"""What a party does with a signed statement that reached it: keep it, put it in force, end it, or refuse it.

The coordinator carries mail and is believed in nothing: every statement is verified by its author's signature against
the roster before it changes a state, and each change is an entry of this party's ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from federation import obligations
from federation.crypto import SignatureError
from federation.holdings import Holdings, State
from federation.home import Home
from federation.ledger import Ledger
from federation.policy import check_parties, parse_policy
from federation.statements import (
    Agreement,
    AgreementRequest,
    Envelope,
    Fulfilment,
    Revocation,
    StatementError,
    Suspension,
    open_agreement,
    open_offer,
    verify,
)

Effect = Literal["offered", "requested", "in-force", "revoked", "suspended", "resumed", "fulfilled", "known"]


def take(home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope, now: datetime) -> tuple[Effect, str]:
    """Take one statement from the mail; returns what it changed and the digest of the agreement concerned.

    Raises:
        VerificationError, DeniedError or UsageError: it is not what it claims to be, or not for us; nothing was
            changed.
        UnavailableError: our own store or ledger cannot write; it may be taken again.
    """
    if envelope.payload_type == Agreement.TYPE:
        return _take_agreement(home, holdings, ledger, envelope, now)
    if envelope.payload_type == Revocation.TYPE:
        return _take_revocation(home, holdings, ledger, envelope)
    if envelope.payload_type == AgreementRequest.TYPE:
        return _take_request(home, holdings, envelope, now)
    if envelope.payload_type == Suspension.TYPE:
        return _take_suspension(home, holdings, ledger, envelope)
    if envelope.payload_type == Fulfilment.TYPE:
        return _take_fulfilment(home, holdings, ledger, envelope, now)
    raise StatementError("mail of an unknown type was delivered: {type}", type=envelope.payload_type[:80])


def _take_request(home: Home, holdings: Holdings, envelope: Envelope, now: datetime) -> tuple[Effect, str]:
    claimed = AgreementRequest.read(envelope)
    request = AgreementRequest.open(envelope, [home.public_key(claimed.consumer)], now)
    if request.provider != home.identity.member:
        raise StatementError("a request for another member was delivered here")
    if holdings.state(envelope.digest) is not None:
        return "known", envelope.digest
    parse_policy(request.policy)
    holdings.check_room(request.consumer)
    keep(holdings, envelope, "requested", request, now)
    return "requested", envelope.digest


def _take_agreement(
    home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope, now: datetime
) -> tuple[Effect, str]:
    me = home.identity.member
    if holdings.state(envelope.digest) in ("in-force", "suspended", "revoked"):
        return "known", envelope.digest
    try:
        agreement = open_agreement(envelope, home.public_key, now)
    except SignatureError:
        return _take_offer(home, holdings, envelope, now)
    if me not in (agreement.provider, agreement.consumer):
        raise StatementError("an agreement between others was delivered here")
    _check_id(holdings, envelope, agreement)
    signed = _signed_by(home, envelope, agreement.provider, agreement.consumer)
    enter_into_force(holdings, ledger, signed, agreement, now)
    return "in-force", envelope.digest


def _take_offer(home: Home, holdings: Holdings, envelope: Envelope, now: datetime) -> tuple[Effect, str]:
    offer = open_offer(envelope, home.public_key, now)
    if offer.consumer != home.identity.member:
        raise StatementError("an offer for another member was delivered here")
    if holdings.state(envelope.digest) is not None:
        return "known", envelope.digest
    check_parties(offer, parse_policy(offer.policy))
    _check_id(holdings, envelope, offer)
    holdings.check_room(offer.provider)
    keep(holdings, _signed_by(home, envelope, offer.provider), "offered", offer, now)
    return "offered", envelope.digest


def _check_id(holdings: Holdings, envelope: Envelope, agreement: Agreement) -> None:
    # People name agreements by id: a second one under the same id could be signed, or revoked, in place of the first.
    for held in holdings.with_id(agreement.id):
        if held.type == Agreement.TYPE and held.digest != envelope.digest:
            raise StatementError("another agreement with the id {id} is held here", id=agreement.id)


def _signed_by(home: Home, envelope: Envelope, *members: str) -> Envelope:
    # Whoever carried the mail may have added signatures, a broken one in our name too: keep those that were verified.
    wanted = {home.public_key(member).key_id for member in members}
    kept = tuple(one for one in envelope.signatures if one.key_id in wanted)
    return Envelope(envelope.payload_type, envelope.payload, kept)


def enter_into_force(
    holdings: Holdings, ledger: Ledger, envelope: Envelope, agreement: Agreement, now: datetime
) -> None:
    """Record an agreement signed by both and hold it as in force, or as suspended where a party's word on that is here
    already; refuse one whose revocation is on record."""
    if _on_record(ledger, envelope.digest):
        raise StatementError("a revocation of this agreement is on record here", hint="agree anew")
    check_parties(agreement, parse_policy(agreement.policy))
    ledger.append(
        "agreement",
        {
            "agreement": envelope.to_bytes(),
            "digest": envelope.digest,
            "provider": agreement.provider,
            "consumer": agreement.consumer,
            "dataset": agreement.dataset,
        },
    )
    paused = any(one.suspended for one in holdings.pauses(envelope.digest))
    keep(holdings, envelope, "suspended" if paused else "in-force", agreement, now)


def _take_revocation(home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope) -> tuple[Effect, str]:
    # Neither age nor a clock that is off keeps a revocation from ending an agreement: only its signature is judged.
    revocation = Revocation.read(envelope)
    verify(envelope, Revocation.TYPE, [home.public_key(revocation.by)])
    held = holdings.get(revocation.agreement)
    if held is None or revocation.by not in (held.provider, held.consumer):
        raise StatementError("a revocation names an agreement that is not between its author and us")
    if held.state == "revoked" and _on_record(ledger, revocation.agreement):
        return "known", revocation.agreement
    revoke(holdings, ledger, envelope, revocation)
    return "revoked", revocation.agreement


def _on_record(ledger: Ledger, agreement: str) -> bool:
    return any(ledger.fields(entry.index).get("agreement") == agreement for entry in ledger.find(kind="revocation"))


def revoke(holdings: Holdings, ledger: Ledger, envelope: Envelope, revocation: Revocation) -> None:
    """End an agreement here, on record; may be repeated where a crash came between.

    State first: a failed ledger write must not leave it usable. And a permit or an answer whose entry was written while
    the state still said ``in-force`` stands before the revocation in the ledger.
    """
    holdings.move(revocation.agreement, "revoked")
    ledger.append(
        "revocation", {"revocation": envelope.to_bytes(), "agreement": revocation.agreement, "by": revocation.by}
    )


def _take_suspension(home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope) -> tuple[Effect, str]:
    # As with revocations, age does not matter; that an older word cannot be played again, its number sees to.
    suspension = Suspension.read(envelope)
    verify(envelope, Suspension.TYPE, [home.public_key(suspension.by)])
    held = holdings.get(suspension.agreement)
    if held is None or suspension.by not in (held.provider, held.consumer):
        raise StatementError("a suspension names an agreement that is not between its author and us")
    if any(one.by == suspension.by and one.number >= suspension.number for one in holdings.pauses(held.digest)):
        return "known", suspension.agreement
    suspend(holdings, ledger, envelope, suspension)
    return "suspended" if suspension.suspended else "resumed", suspension.agreement


def suspend(holdings: Holdings, ledger: Ledger, envelope: Envelope, suspension: Suspension) -> None:
    """Interrupt an agreement here, or let it go on, on record.

    Whichever of state and entry comes first is the one that forbids: no permit stands in the ledger between an
    interruption and its end, and none is given that could not be put on record.
    """
    fields: dict[str, object] = {
        "suspension": envelope.to_bytes(),
        "agreement": suspension.agreement,
        "by": suspension.by,
        "suspended": suspension.suspended,
    }
    if not suspension.suspended:
        ledger.append("suspension", fields)
    holdings.pause(suspension.agreement, suspension.by, suspension.number, suspended=suspension.suspended)
    if suspension.suspended:
        ledger.append("suspension", fields)


def _take_fulfilment(
    home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope, now: datetime
) -> tuple[Effect, str]:
    claimed = Fulfilment.read(envelope)
    fulfilment = Fulfilment.open(envelope, [home.public_key(claimed.by)], now)
    held = holdings.get(fulfilment.agreement)
    if held is None or fulfilment.by not in (held.provider, held.consumer):
        raise StatementError("a fulfilment names an agreement that is not between its author and us")
    if held.provider != home.identity.member:
        # The provider's word on what we owe it: for our own record.
        ledger.append(
            "fulfilment",
            {
                "fulfilment": envelope.to_bytes(),
                "agreement": held.digest,
                "duty": fulfilment.duty,
                "by": fulfilment.by,
            },
        )
        return "fulfilled", held.digest
    obligations.fulfil(ledger, envelope, fulfilment, held.provider)
    return "fulfilled", held.digest


def uphold_revocations(holdings: Holdings, ledger: Ledger) -> int:
    """End what is held in force against a revocation on record, and interrupt what is against a suspension; returns how
    many were ended.

    The ledger never goes back, and a store may: put in place of a newer one, it has forgotten what was revoked since.
    """
    ended = 0
    for entry in ledger.find(kind="revocation"):
        agreement = str(ledger.fields(entry.index).get("agreement", ""))
        if holdings.state(agreement) not in (None, "revoked"):
            holdings.move(agreement, "revoked")
            ended += 1
    for entry in ledger.find(kind="suspension"):
        statement = ledger.fields(entry.index).get("suspension")
        if isinstance(statement, bytes):
            one = Suspension.read(Envelope.from_bytes(statement))
            if holdings.state(one.agreement) is not None:
                holdings.pause(one.agreement, one.by, one.number, suspended=one.suspended)
    return ended


def keep(
    holdings: Holdings,
    envelope: Envelope,
    state: State | Literal["known"],
    statement: Agreement | AgreementRequest,
    now: datetime,
) -> None:
    """Hold a statement in a state."""
    if state == "known":
        return
    holdings.put(
        envelope,
        state,
        id=statement.id,
        provider=statement.provider,
        consumer=statement.consumer,
        dataset=statement.dataset,
        title=statement.title,
        arrived=now,
    )
