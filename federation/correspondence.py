"""What a party does with a signed statement that reached it: keep it, put it in force, end it, or refuse it.

The coordinator carries mail and is believed in nothing: every statement is verified by its author's signature against the
roster before it changes a state, and each change is an entry of this party's ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from federation.crypto import SignatureError
from federation.holdings import Holdings
from federation.home import Home
from federation.ledger import Ledger
from federation.policy import check_parties, parse_policy
from federation.statements import (
    Agreement,
    AgreementRequest,
    Envelope,
    Revocation,
    StatementError,
    open_agreement,
    open_offer,
)

Effect = Literal["offered", "requested", "in-force", "revoked", "known"]


def take(home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope, now: datetime) -> tuple[Effect, str]:
    """Take one statement from the mail; returns what it changed and the digest of the agreement concerned.

    Raises:
        VerificationError, DeniedError or UsageError: it is not what it claims to be, or not for us; nothing was changed.
    """
    if envelope.payload_type == Agreement.TYPE:
        return _take_agreement(home, holdings, ledger, envelope, now)
    if envelope.payload_type == Revocation.TYPE:
        return _take_revocation(home, holdings, ledger, envelope, now)
    if envelope.payload_type == AgreementRequest.TYPE:
        claimed = AgreementRequest.read(envelope)
        request = AgreementRequest.open(envelope, [home.public_key(claimed.consumer)], now)
        if request.provider != home.identity.member:
            raise StatementError("a request for another member was delivered here")
        keep(holdings, envelope, "requested", request, now)
        return "requested", envelope.digest
    raise StatementError("mail of an unknown type was delivered: {type}", type=envelope.payload_type[:80])


def _take_agreement(home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope, now: datetime) -> tuple[Effect, str]:
    me = home.identity.member
    held = holdings.get(envelope.digest)
    if held is not None and held.state in ("in-force", "revoked"):
        return "known", envelope.digest
    try:
        agreement = open_agreement(envelope, home.public_key, now)
    except SignatureError:
        offer = open_offer(envelope, home.public_key, now)
        if offer.consumer != me:
            raise StatementError("an offer for another member was delivered here") from None
        check_parties(offer, parse_policy(offer.policy))
        keep(holdings, envelope, "offered", offer, now)
        return "offered", envelope.digest
    if me not in (agreement.provider, agreement.consumer):
        raise StatementError("an agreement between others was delivered here")
    enter_into_force(holdings, ledger, envelope, agreement, now)
    return "in-force", envelope.digest


def enter_into_force(
    holdings: Holdings, ledger: Ledger, envelope: Envelope, agreement: Agreement, now: datetime
) -> None:
    """Record an agreement signed by both and hold it as in force."""
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
    keep(holdings, envelope, "in-force", agreement, now)


def _take_revocation(home: Home, holdings: Holdings, ledger: Ledger, envelope: Envelope, now: datetime) -> tuple[Effect, str]:
    claimed = Revocation.read(envelope)
    revocation = Revocation.open(envelope, [home.public_key(claimed.by)], now)
    held = holdings.get(revocation.agreement)
    if held is None or revocation.by not in (held.provider, held.consumer):
        raise StatementError("a revocation names an agreement that is not between its author and us")
    if held.state == "revoked":
        return "known", revocation.agreement
    revoke(holdings, ledger, envelope, revocation)
    return "revoked", revocation.agreement


def revoke(holdings: Holdings, ledger: Ledger, envelope: Envelope, revocation: Revocation) -> None:
    """End an agreement here, on record. State first: a failed ledger write must not leave it usable."""
    holdings.move(revocation.agreement, "revoked")
    ledger.append(
        "revocation", {"revocation": envelope.to_bytes(), "agreement": revocation.agreement, "by": revocation.by}
    )


def keep(
    holdings: Holdings, envelope: Envelope, state: Effect, statement: Agreement | AgreementRequest, now: datetime
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
