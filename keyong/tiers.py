"""The weakest isolation a party's owner accepts: asked for when it enters, entered in the roster, changed later."""

from __future__ import annotations

from datetime import timedelta

from coordinator import enrolment
from federation.home import KEY_ROLES, Home, now
from federation.statements import EnrolmentRequest
from federation.wire import messages as m
from keyong.client import Client

REQUEST_VALIDITY = timedelta(hours=1)


def change_tier(home: Home, tier: str) -> None:
    """Have another floor entered in the roster, and keep the owner's word in this home; both bind from then on.

    A running service goes on at the tier it started with, and refuses plans where that is below a floor raised here.

    Raises:
        UnavailableError: the coordinator cannot be reached; nothing was changed.
    """
    me = home.member
    keys = [home.key(role) for role in KEY_ROLES]
    at = now()
    request = EnrolmentRequest(
        issued=at,
        expires=at + REQUEST_VALIDITY,
        consortium=home.identity.consortium,
        member=me.id,
        entity=me.entity,
        statement_key=me.statement_key,
        ledger_key=me.ledger_key,
        witness_key=me.witness_key,
        tls_certificate=me.tls_certificate,
        address=me.address,
        tier=tier,
    ).seal(*keys)
    if home.identity.founded:
        enrolment.change_tier(home, me.id, request, at)
    else:
        with Client(home) as client:
            answer = client.call("roster.tier", m.Envelopes(envelopes=(m.pack(request),)))
            for text in m.Envelopes.from_bytes(answer.header).envelopes:
                envelope = m.unpack(text)
                roster = home.learn(envelope)
                client.ledger.append("roster", {"roster": envelope.digest, "version": roster.version})
    home.accept_tier(tier)
