"""How a party enters: an invitation in, an enrolment request out, a new roster back. And how it exchanges its keys."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, ValidationError

from federation.crypto import canonical_json, parse_json
from federation.errors import KeyongError, UsageError
from federation.statements._base import Digest, Instant, KeyText, Label, MemberId, Part, Statement, Uuid
from federation.statements.roster import Role

_PREFIX = "keyong-invitation:"


class InvitationError(UsageError):
    """An invitation is damaged, or not one."""

    code = "invitation"


class Invitation(Part):
    """A one-time ticket into a consortium; whoever holds it may enrol as this member, so send it privately.

    It pins the root fingerprint and the coordinator's certificate, and carries a one-time TLS key with which the
    enrolment itself is mutually authenticated. Identity keys are made by whoever joins and never travel.
    """

    consortium: Uuid
    name: Label
    fingerprint: Digest
    coordinator: MemberId
    address: Annotated[str, StringConstraints(min_length=3, max_length=255)]
    coordinator_certificate: Annotated[str, StringConstraints(max_length=4096)]
    member: MemberId
    entity: Label
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    expires: Instant
    ticket_key: Annotated[str, Field(max_length=4096, repr=False)]
    ticket_certificate: Annotated[str, StringConstraints(max_length=4096)]

    def to_text(self) -> str:
        """One line of text that can be mailed, or shown as a QR code."""
        return _PREFIX + base64.urlsafe_b64encode(canonical_json(self.model_dump(mode="json"))).decode()

    @classmethod
    def from_text(cls, text: str) -> Invitation:
        """Read an invitation; anything damaged raises :class:`InvitationError`."""
        compact = "".join(text.split())
        if not compact.startswith(_PREFIX):
            raise InvitationError(
                "this is not an invitation (it should begin with {prefix})",
                hint="paste the whole line that `keyong consortium invite` printed, or give the path of its file",
                prefix=_PREFIX,
            )
        try:
            raw = base64.b64decode(compact[len(_PREFIX) :], altchars=b"-_", validate=True)
            return cls.model_validate(parse_json(raw, limit=64 * 1024))
        except (binascii.Error, ValidationError, KeyongError, ValueError):
            raise InvitationError(
                "the invitation is damaged: part of it is missing or changed",
                hint="ask for it again, and copy it as one line",
            ) from None


class EnrolmentRequest(Statement):
    """What a joining party asks to have entered in the roster: its public keys, signed by each of them."""

    TYPE: ClassVar[str] = "application/vnd.keyong.enrolment.v1+json"

    consortium: Uuid
    member: MemberId
    entity: Label
    statement_key: KeyText
    ledger_key: KeyText
    witness_key: KeyText
    tls_certificate: Annotated[str, StringConstraints(max_length=4096)]
    address: Annotated[str, StringConstraints(max_length=255)] = ""
    tier: Annotated[str, StringConstraints(pattern=r"^(T[0-3])?$")] = ""


class KeyChange(Statement):
    """A member exchanges keys: all that it has from now on, signed by each of them and by each of those it had before."""

    TYPE: ClassVar[str] = "application/vnd.keyong.key-change.v1+json"

    consortium: Uuid
    member: MemberId
    statement_key: KeyText
    ledger_key: KeyText
    witness_key: KeyText
    tls_certificate: Annotated[str, StringConstraints(max_length=4096)]
    ledger_since: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Where the ledger's key is exchanged: the last checkpoint under the old one, signed by both. Else empty."""


class LedgerSuccession(Statement):
    """A member whose ledger was lost asks for one of another origin, which commits to a state of the old one.

    Signed by the member's statement key, the old ledger's key and the new one's.
    """

    TYPE: ClassVar[str] = "application/vnd.keyong.ledger-succession.v1+json"

    consortium: Uuid
    member: MemberId
    number: Annotated[int, Field(ge=2, le=999)]
    ledger_key: KeyText
    checkpoint: Annotated[str, StringConstraints(max_length=4096)]
    """The last state of the old ledger that another company cosigned, as a signed note."""
    reason: Annotated[str, Field(max_length=500)] = ""
