"""Offers, agreements and their end, as commands and the SDK do it."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from federation import correspondence
from federation.errors import UsageError
from federation.holdings import Holding
from federation.home import now
from federation.observability import NotServingError, ask
from federation.policy import agreement_policy
from federation.statements import (
    Agreement,
    AgreementRequest,
    Envelope,
    Revocation,
    add_signature,
    open_offer,
)
from keyong.client import Client

REVOCATION_VALIDITY = timedelta(days=365)


def offer(
    client: Client,
    *,
    to: str,
    dataset: str,
    title: str,
    actions: list[str],
    purposes: list[str],
    count: int | None,
    expires: datetime,
    code: list[str],
    protection: str,
    min_tier: str | None,
    min_participants: int | None,
    columns: list[str] | None,
    approval: bool = False,
    review: bool = False,
    max_leak_bits: int | None = None,
    release_slot: int | None = None,
    rules: str | None = None,
    cost: str = "0",
) -> tuple[Agreement, Envelope]:
    """Sign an offer and send it; it becomes an agreement when the consumer signs the same bytes."""
    home = client.home
    client.home.roster.member(to)
    at = now()
    agreement_id = f"urn:uuid:{uuid.uuid4()}"
    policy = agreement_policy(
        provider=home.identity.member,
        consumer=to,
        dataset=dataset,
        actions=actions,
        purposes=purposes,
        count=count,
        expires=expires,
        agreement_id=agreement_id,
        now=at,
        code=code or None,
        protection=protection,
        min_tier=min_tier,
        min_participants=min_participants,
        columns=columns,
        approval=approval,
        review=review,
        max_leak_bits=max_leak_bits,
        release_slot=release_slot,
        rules=rules,
    )
    agreement = Agreement(
        issued=at,
        expires=expires,
        id=agreement_id,
        provider=home.identity.member,
        consumer=to,
        dataset=dataset,
        title=title,
        roster=home.history.digest,
        policy=policy,
        cost=cost,
    )
    envelope = agreement.seal(home.key("statement"))
    client.ledger.append(
        "offer", {"offer": envelope.to_bytes(), "digest": envelope.digest, "consumer": to, "dataset": dataset}
    )
    correspondence.keep(client.holdings, envelope, "offered", agreement, at)
    client.send(to, envelope)
    return agreement, envelope


def request(
    client: Client, *, provider: str, dataset: str, title: str, policy: dict[str, Any], note: str = ""
) -> AgreementRequest:
    """Ask a provider for an agreement; grants nothing."""
    at = now()
    statement = AgreementRequest(
        issued=at,
        expires=at + timedelta(days=30),
        id=policy["@id"],
        provider=provider,
        consumer=client.home.identity.member,
        dataset=dataset,
        title=title,
        policy=policy,
        note=note,
    )
    envelope = statement.seal(client.home.key("statement"))
    correspondence.keep(client.holdings, envelope, "requested", statement, at)
    client.send(provider, envelope)
    return statement


def sign(client: Client, name: str) -> tuple[Agreement, Envelope]:
    """Countersign an offer made to us: from now on it is an agreement, here and, when it arrives, at the provider."""
    held = client.holdings.find(name)
    home = client.home
    envelope = Envelope.from_bytes(held.envelope)
    if held.state != "offered" or held.consumer != home.identity.member:
        raise UsageError(
            "{name} is not an offer that waits for our signature: it is {state}",
            hint="see `keyong inbox`",
            name=held.id,
            state=held.state,
        )
    agreement = open_offer(envelope, home.public_key, now())
    signed = add_signature(envelope, home.key("statement"))
    correspondence.enter_into_force(client.holdings, client.ledger, signed, agreement, now())
    client.send(agreement.provider, signed)
    return agreement, signed


def revoke(client: Client, name: str, reason: str = "") -> Holding:
    """End an agreement: here at once, at the other side when the notice arrives."""
    held = client.holdings.find(name)
    if held.state not in ("in-force", "offered"):
        raise UsageError("{name} is {state}; there is nothing to revoke", name=held.id, state=held.state)
    at = now()
    me = client.home.identity.member
    revocation = Revocation(issued=at, expires=at + REVOCATION_VALIDITY, agreement=held.digest, by=me, reason=reason)
    envelope = revocation.seal(client.home.key("statement"))
    correspondence.revoke(client.holdings, client.ledger, envelope, revocation)
    with suppress(NotServingError):
        ask(client.home.path, "node", "/uphold")  # its jobs end now, not when it looks by itself
    client.send(held.consumer if held.provider == me else held.provider, envelope)
    return held
