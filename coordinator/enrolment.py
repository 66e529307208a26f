"""How members come and go: invitations out, enrolment requests in, a new roster signed by the root."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from coordinator.store import CoordinatorStore, InvitationRow
from federation.crypto import PublicKey, TlsIdentity, certificate_fingerprint, check_certificate
from federation.errors import DeniedError, UsageError
from federation.home import Home
from federation.statements import (
    EnrolmentRequest,
    Envelope,
    Invitation,
    Member,
    Roster,
    instant_text,
    parse_instant,
)
from federation.statements.roster import Role

ROSTER_VALIDITY = timedelta(days=90)
INVITATION_VALIDITY = timedelta(days=7)


class EnrolmentError(DeniedError):
    """This enrolment is not what its invitation allows."""

    code = "enrolment"


class RootAbsentError(UsageError):
    """The roster can only be changed where its root key is."""

    code = "no-root-key"


def invite(
    home: Home,
    store: CoordinatorStore,
    *,
    member: str,
    entity: str,
    roles: tuple[Role, ...],
    at: datetime,
    validity: timedelta = INVITATION_VALIDITY,
) -> Invitation:
    """Make a one-time invitation; an earlier unused one for the same member is void."""
    roster = home.roster
    if any(known.id == member for known in roster.members):
        raise UsageError("{member} is in the roster already", hint="see `keyong consortium roster`", member=member)
    ticket = TlsIdentity.generate(f"ticket-{member}", days=max(1, validity.days + 1))
    coordinator = roster.coordinator
    invitation = Invitation(
        consortium=roster.consortium,
        name=roster.name,
        fingerprint=home.identity.fingerprint,
        coordinator=coordinator.id,
        address=coordinator.address,
        coordinator_certificate=coordinator.tls_certificate,
        member=member,
        entity=entity,
        roles=roles,
        expires=at + validity,
        ticket_key=ticket.key_pem.decode(),
        ticket_certificate=ticket.certificate_pem.decode(),
    )
    store.put_invitation(
        InvitationRow(
            fingerprint=certificate_fingerprint(invitation.ticket_certificate.encode()),
            member=member,
            entity=entity,
            roles=json.dumps(list(roles)),
            certificate=invitation.ticket_certificate,
            expires=instant_text(invitation.expires),
        )
    )
    return invitation


@dataclass(frozen=True)
class Enrolled:
    """A new roster, with the member in it."""

    envelope: Envelope
    member: Member


def enrol(home: Home, store: CoordinatorStore, ticket: str, envelope: Envelope, at: datetime) -> Enrolled:
    """Enter whoever holds this ticket into the roster, with the keys their request proves possession of.

    Raises:
        EnrolmentError: ticket used, expired or for someone else.
        VerificationError subclasses: a signature or a certificate does not hold.
    """
    row = store.invitation(ticket)
    if row is None or row.used:
        raise EnrolmentError("this invitation was used before, or is not known", hint="ask the founder for a new one")
    if at >= parse_instant(row.expires):
        raise EnrolmentError("this invitation expired at {expires}", hint="ask the founder for a new one", expires=row.expires)
    claimed = EnrolmentRequest.read(envelope)
    keys = [PublicKey.from_text(text) for text in (claimed.statement_key, claimed.ledger_key, claimed.witness_key)]
    request = EnrolmentRequest.open(envelope, keys, at)
    roster = home.roster
    if (request.consortium, request.member, request.entity) != (roster.consortium, row.member, row.entity):
        raise EnrolmentError("the request is not for the member that was invited")
    check_certificate(request.tls_certificate.encode())
    member = Member(
        id=request.member,
        entity=request.entity,
        roles=tuple(json.loads(row.roles)),
        statement_key=request.statement_key,
        ledger_key=request.ledger_key,
        witness_key=request.witness_key,
        tls_certificate=request.tls_certificate,
        address=request.address,
        tier=request.tier,
    )
    new = next_roster(home, (*roster.members, member), at)
    if not store.use_invitation(ticket):
        raise EnrolmentError("this invitation was used before, or is not known", hint="ask the founder for a new one")
    home.learn(new)
    return Enrolled(new, member)


def remove(home: Home, member: str, at: datetime) -> Envelope:
    """Sign and keep a roster without that member."""
    roster = home.roster
    roster.member(member)
    if member == home.identity.member:
        raise UsageError("the founder cannot remove itself", hint="hand over the root first")
    new = next_roster(home, tuple(known for known in roster.members if known.id != member), at)
    home.learn(new)
    return new


def next_roster(home: Home, members: tuple[Member, ...], at: datetime, validity: timedelta = ROSTER_VALIDITY) -> Envelope:
    """The next version, signed with the root key held here."""
    history = home.history
    latest = history.latest
    if not home.identity.founded:
        raise RootAbsentError("this home holds no root key", hint="do this where the consortium was founded")
    if latest.root.threshold != 1:
        raise RootAbsentError("this roster needs {count} root signatures; one home cannot give them", count=latest.root.threshold)
    roster = Roster(
        issued=at,
        expires=at + validity,
        consortium=latest.consortium,
        name=latest.name,
        version=latest.version + 1,
        previous=history.digest,
        root=latest.root,
        members=members,
    )
    return roster.seal(home.key("root"))
