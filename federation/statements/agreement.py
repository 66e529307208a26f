"""Agreements between a provider and a consumer, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from federation.crypto import PublicKey
from federation.statements._base import DatasetId, Decimal, Digest, Label, MemberId, OptionalDigest, Statement, Uuid
from federation.statements.dsse import Envelope, verify


class Agreement(Statement):
    """What a provider lets a consumer do with one dataset: an ODRL policy, signed by both.

    The provider's signature alone makes it an offer; the consumer's beside it, over the same bytes, an agreement.
    """

    TYPE: ClassVar[str] = "application/vnd.keyong.agreement.v1+json"

    id: Uuid
    provider: MemberId
    consumer: MemberId
    dataset: DatasetId
    title: Label
    roster: Digest
    policy: dict[str, Any]
    """ODRL 2.2 in the shape of the Dataspace Protocol; judged by :mod:`federation.policy` at registration and at
    use."""
    cost: Decimal = "0"
    """Price of one use in the currency that the tariff names; 0 where nothing is charged."""
    tariff: Annotated[str, StringConstraints(max_length=200)] = ""

    @model_validator(mode="after")
    def _two_parties(self) -> Self:
        if self.provider == self.consumer:
            raise ValueError("an agreement needs two parties")
        return self


def open_agreement(envelope: Envelope, key_of: Callable[[str], PublicKey], now: datetime) -> Agreement:
    """Read an agreement signed by both its parties and in force at ``now``; an offer alone is refused."""
    agreement = Agreement.read(envelope)
    verify(envelope, Agreement.TYPE, [key_of(agreement.provider), key_of(agreement.consumer)])
    agreement.check_time(now)
    return agreement


def open_offer(envelope: Envelope, key_of: Callable[[str], PublicKey], now: datetime) -> Agreement:
    """Read an offer: signed by its provider, waiting for the consumer."""
    agreement = Agreement.read(envelope)
    verify(envelope, Agreement.TYPE, [key_of(agreement.provider)])
    agreement.check_time(now)
    return agreement


class Revocation(Statement):
    """One party ends an agreement, with effect from its arrival."""

    TYPE: ClassVar[str] = "application/vnd.keyong.revocation.v1+json"

    agreement: Digest
    by: MemberId
    reason: Annotated[str, Field(max_length=500)] = ""


class Suspension(Statement):
    """One party interrupts an agreement, or lets it go on; each party takes back its own interruption alone."""

    TYPE: ClassVar[str] = "application/vnd.keyong.suspension.v1+json"

    agreement: Digest
    by: MemberId
    number: Annotated[int, Field(ge=1, le=2**53 - 1)]
    """Rises with every word of this party on this agreement, so that an older one cannot be played again."""
    suspended: bool
    reason: Annotated[str, Field(max_length=500)] = ""


class Fulfilment(Statement):
    """One party says that a duty of an agreement was fulfilled, for one job or for all that owe it."""

    TYPE: ClassVar[str] = "application/vnd.keyong.fulfilment.v1+json"

    agreement: Digest
    by: MemberId
    duty: Annotated[str, StringConstraints(pattern=r"^odrl:(compensate|delete|attribute)$")]
    plan: OptionalDigest = ""
    note: Annotated[str, Field(max_length=500)] = ""


class AgreementRequest(Statement):
    """A consumer asks a provider for an agreement of this shape; it grants nothing."""

    TYPE: ClassVar[str] = "application/vnd.keyong.agreement-request.v1+json"

    id: Uuid
    provider: MemberId
    consumer: MemberId
    dataset: DatasetId
    title: Label
    policy: dict[str, Any]
    note: Annotated[str, Field(max_length=1000)] = ""
