"""How members come and go: invitations out, enrolment requests in, a new roster signed by the root.

The command line and a running coordinator change the roster of one home from two processes. Each change is made under
one lock, from the newest version on disk; else both would sign a version of the same number, and the roster would fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

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
    deliver: Callable[[Invitation], None] | None = None,
) -> Invitation:
    """Make a one-time invitation; an earlier unused one for the same member is void.

    Args:
        deliver: is handed the invitation before it counts; where it raises, the earlier one stays as it was.
    """
    roster = home.roster
    _check_root(home, roster)
    if any(known.id == member for known in roster.members):
        raise UsageError("{member} is in the roster already", hint="see `keyong consortium roster`", member=member)
    if validity <= timedelta(0):
        raise UsageError("an invitation must be valid for some time", hint="give at least one day")
    # Not the member's name: a certificate's name ends at 64 characters, and this one tells nobody whose ticket it is.
    ticket = TlsIdentity.generate(f"ticket-{secrets.token_hex(8)}", days=max(1, validity.days + 1))
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
    if deliver is not None:
        deliver(invitation)
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
        raise EnrolmentError(
            "this invitation expired at {expires}", hint="ask the founder for a new one", expires=row.expires
        )
    claimed = EnrolmentRequest.read(envelope)
    keys = [PublicKey.from_text(text) for text in (claimed.statement_key, claimed.ledger_key, claimed.witness_key)]
    request = EnrolmentRequest.open(envelope, keys, at)
    if (request.consortium, request.member, request.entity) != (home.identity.consortium, row.member, row.entity):
        raise EnrolmentError("the request is not for the member that was invited")
    check_certificate(request.tls_certificate.encode())
    if certificate_fingerprint(request.tls_certificate.encode()) == ticket:
        raise EnrolmentError("the invitation's own certificate cannot become a member's")
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
    with roster_lock(home):
        roster = home.roster
        if any(known.id == member.id for known in roster.members):
            raise EnrolmentError("{member} is in the roster already", hint="ask the founder", member=member.id)
        new = next_roster(home, (*roster.members, member), at)
        if not store.use_invitation(ticket):
            raise EnrolmentError(
                "this invitation was used before, or is not known", hint="ask the founder for a new one"
            )
        home.learn(new)
    return Enrolled(new, member)


def change_tier(home: Home, sender: str, envelope: Envelope, at: datetime) -> Enrolled:
    """Enter another floor of isolation for a member: the request its owner signed, with every key it is enrolled by.

    Raises:
        EnrolmentError: another member's request, or other keys than those of the roster.
        VerificationError subclasses: a signature does not hold, or the request is out of date.
    """
    claimed = EnrolmentRequest.read(envelope)
    keys = [PublicKey.from_text(text) for text in (claimed.statement_key, claimed.ledger_key, claimed.witness_key)]
    request = EnrolmentRequest.open(envelope, keys, at)
    with roster_lock(home):
        roster = home.roster
        member = roster.member(sender)
        named = (request.consortium, request.member, request.statement_key, request.ledger_key, request.witness_key)
        if named != (roster.consortium, member.id, member.statement_key, member.ledger_key, member.witness_key):
            raise EnrolmentError("a change of tier is signed by the member itself, with the keys it is enrolled by")
        if request.issued < _entered(home, member):
            raise EnrolmentError("this request is older than the member's entry", hint="make the change anew")
        changed = member.model_copy(update={"tier": request.tier})
        if changed != member:
            members = tuple(changed if known.id == member.id else known for known in roster.members)
            home.learn(next_roster(home, members, at))
    return Enrolled(home.history.envelopes[-1], changed)


def _entered(home: Home, member: Member) -> datetime:
    """When the roster's entry of a member became what it is: a request from before would bring an old floor back."""
    since = home.history.latest.issued
    for envelope in reversed(home.history.envelopes):
        roster = Roster.read(envelope)
        if member not in roster.members:
            break
        since = roster.issued
    return since


def remove(home: Home, member: str, at: datetime) -> Envelope:
    """Sign and keep a roster without that member."""
    with roster_lock(home):
        roster = home.history.latest
        roster.member(member)
        if member == home.identity.member:
            raise UsageError("the founder cannot remove itself", hint="hand over the root first")
        new = next_roster(home, tuple(known for known in roster.members if known.id != member), at)
        home.learn(new)
    return new


def renew(home: Home, at: datetime, before: timedelta) -> bool:
    """Sign the same members anew where the roster expires within ``before`` and one root key, held here, suffices."""
    latest = home.history.latest
    if not home.identity.founded or home.key("root").public.text not in latest.root.keys:
        return False
    if latest.root.threshold != 1 or latest.expires - at >= before:
        return False
    with roster_lock(home):
        latest = home.history.latest
        if latest.expires - at >= before:
            return False
        home.learn(next_roster(home, latest.members, at))
    return True


@contextlib.contextmanager
def roster_lock(home: Home) -> Iterator[None]:
    """Hold off every other process that would change this home's roster."""
    descriptor = os.open(home.path / "rosters" / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def next_roster(
    home: Home, members: tuple[Member, ...], at: datetime, validity: timedelta = ROSTER_VALIDITY
) -> Envelope:
    """The next version, signed with the root key held here; to be made and learnt under :func:`roster_lock`."""
    history = home.history
    latest = history.latest
    _check_root(home, latest)
    try:
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
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise EnrolmentError("the roster would not hold: {what}", what=first["msg"]) from None
    return roster.seal(home.key("root"))


def _check_root(home: Home, roster: Roster) -> None:
    if not home.identity.founded:
        raise RootAbsentError("this home holds no root key", hint="do this where the consortium was founded")
    if home.key("root").public.text not in roster.root.keys:
        raise RootAbsentError(
            "the root key held here is not one of the roster in force",
            hint="propose where one of them is held (`keyong consortium roster` lists them)",
        )
    if roster.root.threshold != 1:
        raise RootAbsentError(
            "this roster needs {count} root signatures; one home cannot give them",
            hint="holders of root keys sign a roster together (`keyong consortium propose`); to invite members, a quorum"
            " lowers the threshold to 1 for that time",
            count=roster.root.threshold,
        )
