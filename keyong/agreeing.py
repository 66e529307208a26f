"""Offers, agreements and their end, as commands and the SDK do it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from federation import correspondence, obligations
from federation.errors import UsageError
from federation.holdings import Holding
from federation.home import now
from federation.observability import NotServingError, ask
from federation.policy import agreement_policy, check_parties, parse_policy
from federation.statements import (
    Agreement,
    AgreementRequest,
    Envelope,
    Fulfilment,
    Revocation,
    Suspension,
    add_signature,
    open_offer,
)
from keyong.client import Client

REVOCATION_VALIDITY = timedelta(days=365)
_NAMED_IN_FULL = re.compile(r"urn:uuid:[0-9a-f-]{36}|sha256:[0-9a-f]{64}")


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
    code: list[str] | None,
    protection: str,
    min_tier: str | None,
    min_participants: int | None,
    columns: list[str] | None,
    approval: bool = False,
    review: bool = False,
    max_leak_bits: int | None = None,
    release_slot: int | None = None,
    rho: str | None = None,
    rules: str | None = None,
    further: Mapping[str, str] = MappingProxyType({}),
    cost: str = "0",
    tariff: str = "",
) -> tuple[Agreement, Envelope]:
    """Sign an offer and send it; it becomes an agreement when the consumer signs the same bytes."""
    home = client.home
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
        rho=rho,
        rules=rules,
        further=further,
    )
    return offer_policy(
        client, to=to, dataset=dataset, title=title, expires=expires, policy=policy, cost=cost, tariff=tariff
    )


def offer_policy(
    client: Client,
    *,
    to: str,
    dataset: str,
    title: str,
    expires: datetime,
    policy: dict[str, Any],
    cost: str = "0",
    tariff: str = "",
) -> tuple[Agreement, Envelope]:
    """Sign an offer of a whole policy and send it.

    Raises:
        PolicyError, TariffError: nobody could sign it.
    """
    home = client.home
    home.roster.member(to)
    at = now()
    agreement = Agreement(
        issued=at,
        expires=expires,
        id=policy["@id"],
        provider=home.identity.member,
        consumer=to,
        dataset=dataset,
        title=title,
        roster=home.history.digest,
        policy=policy,
        cost=cost,
        tariff=tariff,
    )
    check_parties(agreement, parse_policy(policy))
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
            name=_named(held),
            state=held.state,
        )
    agreement = open_offer(envelope, home.public_key, now())
    signed = add_signature(envelope, home.key("statement"))
    correspondence.enter_into_force(client.holdings, client.ledger, signed, agreement, now())
    client.send(agreement.provider, signed)
    return agreement, signed


def suspend(client: Client, name: str, reason: str = "", *, suspended: bool = True) -> Holding:
    """Interrupt an agreement, or take our own interruption back: here at once, at the other side when the notice
    arrives."""
    held = client.holdings.find(name)
    me = client.home.identity.member
    mine = next((one for one in client.holdings.pauses(held.digest) if one.by == me), None)
    if held.state not in ("in-force", "suspended") or (mine is not None and mine.suspended) == suspended:
        if suspended:
            raise UsageError("{name} is {state}; there is nothing to suspend", name=_named(held), state=held.state)
        raise UsageError("{name} is not suspended by us", hint="see `keyong agreement show`", name=_named(held))
    at = now()
    number = (mine.number if mine is not None else 0) + 1
    suspension = Suspension(
        issued=at,
        expires=at + REVOCATION_VALIDITY,
        agreement=held.digest,
        by=me,
        number=number,
        suspended=suspended,
        reason=reason,
    )
    envelope = suspension.seal(client.home.key("statement"))
    if suspended:
        _strike(client, held.digest, "suspended")
    correspondence.suspend(client.holdings, client.ledger, envelope, suspension)
    with suppress(NotServingError):
        ask(client.home.path, "node", "/uphold")
    client.send(held.consumer if held.provider == me else held.provider, envelope)
    return held


def fulfil(client: Client, name: str, duty: str, plan: str = "", note: str = "") -> Holding:
    """Say, signed, that a duty of an agreement was fulfilled, and tell the other side.

    The provider's word settles what is owed to it; the consumer's, what only the consumer can know.
    """
    held = client.holdings.find(name)
    at = now()
    me = client.home.identity.member
    fulfilment = Fulfilment(
        issued=at, expires=at + REVOCATION_VALIDITY, agreement=held.digest, by=me, duty=duty, plan=plan, note=note
    )
    envelope = fulfilment.seal(client.home.key("statement"))
    if held.provider == me:
        obligations.fulfil(client.ledger, envelope, fulfilment, me)
    else:
        fields = {"fulfilment": envelope.to_bytes(), "agreement": held.digest, "duty": duty, "by": me}
        client.ledger.append("fulfilment", fields)
    client.send(held.consumer if held.provider == me else held.provider, envelope)
    return held


def revoke(client: Client, name: str, reason: str = "") -> Holding:
    """End an agreement: here at once, at the other side when the notice arrives.

    What runs under it is ended before anything is read or written, where it is named in full: store, signature and ledger
    would each keep it alive for their own time. Where the command goes no further than that, a job was ended in vain and
    the agreement stands.
    """
    _strike(client, name, "revoked")
    held = client.holdings.find(name)
    if held.state not in ("in-force", "suspended", "offered"):
        raise UsageError("{name} is {state}; there is nothing to revoke", name=_named(held), state=held.state)
    if name != held.digest:
        _strike(client, held.digest, "revoked")
    at = now()
    me = client.home.identity.member
    revocation = Revocation(issued=at, expires=at + REVOCATION_VALIDITY, agreement=held.digest, by=me, reason=reason)
    envelope = revocation.seal(client.home.key("statement"))
    correspondence.revoke(client.holdings, client.ledger, envelope, revocation)
    with suppress(NotServingError):
        ask(client.home.path, "node", "/uphold")  # its jobs end now, not when it looks by itself
    client.send(held.consumer if held.provider == me else held.provider, envelope)
    return held


def _named(held: Holding) -> str:
    """A holding as a person knows it: how its id begins, and what it is about."""
    return f"{held.id.removeprefix('urn:uuid:')[:8]} ({held.provider}/{held.dataset})"


def _strike(client: Client, agreement: str, why: str) -> None:
    """Have the node that serves this home end what runs under an agreement now; it knows it by its whole id or digest."""
    if _NAMED_IN_FULL.fullmatch(agreement):
        with suppress(NotServingError):
            ask(client.home.path, "node", f"/strike/{why}/{agreement}")
