"""A member exchanges its keys: its request, signed under old and new keys, becomes its entry in the next roster."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from coordinator.enrolment import Enrolled, EnrolmentError, next_roster, roster_lock
from federation.crypto import PublicKey, check_certificate, server_name
from federation.home import Home
from federation.keyring import handed_over, ledger_origin
from federation.statements import Envelope, KeyChange, Member


def change_keys(home: Home, sender: str, envelope: Envelope, at: datetime) -> Enrolled:
    """Enter other keys for a member; the same request again changes nothing.

    Raises:
        EnrolmentError: another member's request, a certificate under another name, keys that serve somebody already.
        SignatureError: not signed by every key that the member has now and by every key that it is to have.
        LedgerError: the checkpoint at which the ledger's new key takes over is not signed by both.
        RootAbsentError: the root key here does not suffice for a roster.
    """
    claimed = KeyChange.read(envelope)
    with roster_lock(home):
        roster = home.roster
        member = roster.member(sender)
        keys = dict.fromkeys((*_keys(member), *_keys(claimed)))
        request = KeyChange.open(envelope, [PublicKey.from_text(text) for text in keys], at)
        if (request.consortium, request.member) != (roster.consortium, member.id):
            raise EnrolmentError("a member's keys are changed by the member itself")
        if check_certificate(request.tls_certificate.encode()).server_name != server_name(member.id):
            raise EnrolmentError("the certificate is not in the name of {member}", member=member.id)
        changed = _changed(member, request)
        if request.ledger_key != member.ledger_key:
            handed_over(ledger_origin(roster.consortium, member.id, member.ledger_number), member.ledger_key, changed)
        if changed != member:
            members = tuple(changed if known.id == member.id else known for known in roster.members)
            home.learn(next_roster(home, members, at))
    return Enrolled(home.history.envelopes[-1], changed)


def _keys(of: Member | KeyChange) -> tuple[str, str, str]:
    return of.statement_key, of.ledger_key, of.witness_key


def _changed(member: Member, request: KeyChange) -> Member:
    """The member's entry with the keys of a request."""
    values = member.model_dump() | {
        "statement_key": request.statement_key,
        "ledger_key": request.ledger_key,
        "witness_key": request.witness_key,
        "tls_certificate": request.tls_certificate,
    }
    if request.ledger_key != member.ledger_key:
        values["ledger_since"] = request.ledger_since
    try:
        return Member.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise EnrolmentError("the roster would not hold: {what}", what=first["msg"]) from None
