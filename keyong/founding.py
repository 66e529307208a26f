"""Founding a consortium and entering one."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

from coordinator.enrolment import ROSTER_VALIDITY
from federation.crypto import TlsIdentity
from federation.errors import KeyongError, UnavailableError, UsageError
from federation.home import KEY_ROLES, Home, Identity, NewKeys, now, refuse_occupied
from federation.statements import (
    EnrolmentRequest,
    Invitation,
    InvitationError,
    Member,
    Root,
    Roster,
    RosterHistory,
    root_fingerprint,
)
from federation.statements.roster import Role
from federation.wire.dial import Address, dial
from federation.wire.messages import Envelopes, RosterSince, pack, unpack


def found(
    path: Path, *, name: str, member: str, entity: str, address: str, roles: tuple[Role, ...], tier: str = ""
) -> Home:
    """Found a consortium: root key, first roster, and the founder's own identity, with its floor of isolation."""
    refuse_occupied(path)
    keys = NewKeys(member, root=True)
    assert keys.root is not None
    at = now()
    consortium = f"urn:uuid:{uuid.uuid4()}"
    root = Root(threshold=1, keys=(keys.root.public.text,))
    founder = Member(
        id=member,
        entity=entity,
        roles=roles,
        statement_key=keys.statement.public.text,
        ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text,
        tls_certificate=keys.tls.certificate_pem.decode(),
        address=address,
        tier=tier,
    )
    roster = Roster(
        issued=at,
        expires=at + ROSTER_VALIDITY,
        consortium=consortium,
        name=name,
        version=1,
        root=root,
        members=(founder,),
    )
    identity = Identity(
        consortium=consortium,
        name=name,
        fingerprint=root_fingerprint(consortium, root),
        member=member,
        entity=entity,
        roles=roles,
        founded=True,
        coordinator=member,
        address=address,
    )
    home = Home.create(path, identity, keys, [roster.seal(keys.root)])
    if tier:
        home.accept_tier(tier)
    return home


def read_invitation(text_or_path: str) -> Invitation:
    """An invitation given as its text or as the path of a file that holds it."""
    candidate = Path(text_or_path)
    try:
        is_file, is_folder = candidate.is_file(), candidate.is_dir()
    except OSError:  # longer than a name may be: the text itself
        is_file = is_folder = False
    if is_file:
        try:
            return Invitation.from_text(candidate.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise InvitationError("{path} cannot be read as an invitation", path=str(candidate)) from None
    if is_folder:
        raise InvitationError(
            "{path} is a folder, not an invitation", hint="give the path of its file", path=text_or_path
        )
    if not text_or_path.strip().startswith("keyong-invitation:") and "/" in text_or_path:
        raise InvitationError(
            "there is no file {path}", hint="give the invitation's text, or the path of its file", path=text_or_path
        )
    return Invitation.from_text(text_or_path)


def join(path: Path, invitation: Invitation, *, fingerprint: str | None = None, tier: str = "") -> Home:
    """Enter a consortium: make keys here, enrol over a link authenticated by the ticket, pin the root.

    Raises:
        InvitationError: expired, or its fingerprint is not the one given.
        VerificationError subclasses: the coordinator answered with a roster that does not hold.
    """
    refuse_occupied(path)
    at = now()
    if at >= invitation.expires:
        raise InvitationError(
            "this invitation expired", hint="ask the founder for a new one; if it is fresh, check this clock"
        )
    if fingerprint is not None and fingerprint != invitation.fingerprint:
        raise InvitationError(
            "the invitation's root fingerprint is not the one you were given",
            hint="do not join: ask the founder over another channel which is right",
        )
    keys = NewKeys(invitation.member, root=False)
    request = EnrolmentRequest(
        issued=at,
        expires=at + timedelta(hours=1),
        consortium=invitation.consortium,
        member=invitation.member,
        entity=invitation.entity,
        statement_key=keys.statement.public.text,
        ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text,
        tls_certificate=keys.tls.certificate_pem.decode(),
        tier=tier,
    ).seal(keys.statement, keys.ledger, keys.witness)
    history = asyncio.run(_enrol(invitation, Envelopes(envelopes=(pack(request),)).to_bytes(), keys.tls))
    me = history.latest.member(invitation.member)
    entered = (me.statement_key, me.ledger_key, me.witness_key, me.tls_certificate)
    if me.tier != tier:
        raise UsageError("the coordinator entered another tier than ours; nothing was kept", code="enrolment")
    ours = (*(keys.of(role).public.text for role in KEY_ROLES), keys.tls.certificate_pem.decode())
    if entered != ours:
        raise UsageError("the coordinator entered another key than ours; nothing was kept", code="enrolment")
    identity = Identity(
        consortium=invitation.consortium,
        name=history.latest.name,
        fingerprint=invitation.fingerprint,
        member=invitation.member,
        entity=invitation.entity,
        roles=invitation.roles,
        coordinator=invitation.coordinator,
        address=invitation.address,
    )
    home = Home.create(path, identity, keys, list(history.envelopes))
    if tier:
        home.accept_tier(tier)
    return home


async def _enrol(invitation: Invitation, header: bytes, tls: TlsIdentity) -> RosterHistory:
    """Enrol, and take the whole roster chain: what does not fit into the answer is asked for as the new member."""
    address = Address(invitation.address, invitation.coordinator, invitation.coordinator_certificate)
    ticket = (invitation.ticket_key.encode(), invitation.ticket_certificate.encode())
    try:
        async with dial(address, *ticket) as peer:
            answer = await peer.call("enrol", header, timeout=30)
    except KeyongError as error:
        if error.code == "unreachable":
            raise UnavailableError(
                "cannot enrol at {target}: it cannot be reached, or this invitation was used before or is void",
                hint="is the coordinator running? each invitation works once, and a newer one for the same member makes it "
                "void; ask for a new one",
                code="unreachable",
                target=invitation.address,
            ) from None
        raise
    envelopes = [unpack(text) for text in Envelopes.from_bytes(answer.header).envelopes]
    history = RosterHistory(envelopes, invitation.fingerprint)
    if any(member.id == invitation.member for member in history.latest.members):
        return history
    async with dial(address, tls.key_pem, tls.certificate_pem) as peer:
        while True:
            since = RosterSince(after=history.latest.version)
            answer = await peer.call("roster.get", since.to_bytes(), timeout=30)
            newer = Envelopes.from_bytes(answer.header).envelopes
            for text in newer:
                history.extend(unpack(text))
            if not newer:
                return history
