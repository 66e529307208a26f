"""What every signed statement shares: strict models, canonical bytes, validity in time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, ValidationError
from pydantic_core import SchemaValidator

from federation.crypto import PublicKey, SigningKey, canonical_json, parse_json, restates, restates_plainly
from federation.errors import VerificationError
from federation.statements._plain import UnknownSchemaError, plain_validator
from federation.statements.dsse import Envelope, add_signature, sign, verify

MAX_STATEMENT_BYTES = 640 * 1024
"""Largest payload. Its envelope (base64 and 64 signatures, under 1 MiB) then fits whatever carries one: the envelope
reader's limit, one ledger entry, a message's header. Checked when a statement is made, so that nobody signs what nobody
can read."""
CLOCK_SKEW = timedelta(seconds=120)
"""How far two honest clocks may differ before a statement counts as not yet valid."""


class StatementError(VerificationError):
    """A statement is malformed or does not fit where it was presented."""

    code = "statement"


class ExpiredError(StatementError):
    """A statement's time is over."""

    code = "expired"


class NotYetValidError(StatementError):
    """A statement claims to be issued in the future: one of the two clocks is off."""

    code = "not-yet-valid"


class ReplayError(StatementError):
    """A statement that may be used once was presented again."""

    code = "replay"


def _utc_seconds(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs its zone (end it with Z)")
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time lies outside the calendar") from None
    return moment.replace(microsecond=0) if moment.microsecond else moment


_TO_THE_SECOND = len("2026-03-01T12:00:00")


def instant_text(value: datetime) -> str:
    """RFC 3339 in UTC to the second, the one form in which times are signed."""
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat()[:_TO_THE_SECOND] + "Z"


def parse_instant(text: str) -> datetime:
    """Read what :func:`instant_text` wrote."""
    try:
        return _utc_seconds(datetime.fromisoformat(text))
    except ValueError:
        raise StatementError("{text} is not a time", text=text[:40]) from None


Instant = Annotated[datetime, AfterValidator(_utc_seconds), PlainSerializer(instant_text, return_type=str)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
OptionalDigest = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")]
MemberId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?$")]
"""A DNS label of at most 57 characters: with a suffix, it is the name in the member's TLS certificate."""
DatasetId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Uuid = Annotated[str, StringConstraints(pattern=r"^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
KeyText = Annotated[str, StringConstraints(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Decimal = Annotated[str, StringConstraints(pattern=r"^-?(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?$")]
"""An amount: a decimal string, never a float, in anything that is hashed."""
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Part(BaseModel):
    """A piece of a statement: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Statement(Part):
    """A signed statement: canonical JSON under one DSSE payload type, issued and expiring.

    The stored bytes are what is signed and digested; the model is only a reading of them.
    """

    TYPE: ClassVar[str]
    CLOSED: ClassVar[bool] = False
    """Whether no field, however deep, can hold a float or a value of any type: then a statement that says what its bytes say
    was read from their canonical form, and there is no need to read them twice."""
    LATER: ClassVar[tuple[str, ...]] = ()
    """Fields that a later release added: left out of the payload while they have their default, so that statements from
    before still read as they were signed, and parties that do not know them read ours."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    issued: Instant
    expires: Instant

    def payload(self) -> bytes:
        """Canonical JSON (RFC 8785) of every field, empty ones included but for :attr:`LATER`; raises where it is larger
        than a statement may be."""
        data = canonical_json(self._said())
        if len(data) > MAX_STATEMENT_BYTES:
            raise StatementError(
                "a {kind} of {size} bytes is larger than the {limit} bytes a statement may have",
                kind=type(self).__name__,
                size=len(data),
                limit=MAX_STATEMENT_BYTES,
            )
        return data

    def _said(self) -> dict[str, Any]:
        fields = self.model_dump(mode="json")
        for name in self.LATER:
            if fields[name] == type(self).model_fields[name].default:
                del fields[name]
        return fields

    def seal(self, *keys: SigningKey) -> Envelope:
        """Sign this statement with each key, in order."""
        envelope = sign(keys[0], self.TYPE, self.payload())
        for key in keys[1:]:
            envelope = add_signature(envelope, key)
        return envelope

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        """Parse the payload of an envelope, once, without judging signatures; :meth:`open` judges them."""
        known = envelope.statements.get(cls)
        if isinstance(known, cls):
            return known
        cls._check_type(envelope)
        read = envelope.statements[cls] = cls.from_payload(envelope.payload)
        return read

    @classmethod
    def texts(cls, envelope: Envelope, *fields: str) -> tuple[str, ...]:
        """Those fields of what :meth:`read` would give, judged as it judges; for a verifier, who reads a million."""
        cls._check_type(envelope)
        said = cls._said_plainly(envelope.payload)
        if said is None:
            said = cls.from_payload(envelope.payload)._said()
        return tuple(said[name] for name in fields)

    @classmethod
    def _said_plainly(cls, payload: bytes) -> dict[str, Any] | None:
        """What ``payload`` says, moments as such, if these are plain to see the canonical bytes of it; None says nothing."""
        validator = _plain_validator(cls)
        if validator is None or len(payload) > MAX_STATEMENT_BYTES:
            return None
        try:
            said: dict[str, Any] = validator.validate_json(payload)
        except ValidationError:
            return None
        if any(name in said and said[name] == cls.model_fields[name].default for name in cls.LATER):
            return None
        return said if restates_plainly(said, payload) else None

    @classmethod
    def _check_type(cls, envelope: Envelope) -> None:
        if envelope.payload_type != cls.TYPE:
            raise StatementError(
                "expected a statement of type {expected}, got {got}", expected=cls.TYPE, got=envelope.payload_type[:80]
            )

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Parse stored bytes; they must be the canonical form of what they say."""
        return cls._read_plainly(payload) or cls._read_strictly(payload)

    @classmethod
    def _read_plainly(cls, payload: bytes) -> Self | None:
        """The statement that writes itself as ``payload``; None says nothing."""
        if not cls.CLOSED or len(payload) > MAX_STATEMENT_BYTES:
            return None
        try:
            statement = cls.model_validate_json(payload)
        except ValidationError:
            return None
        return statement if restates_plainly(statement._said(), payload) else None

    @classmethod
    def _read_strictly(cls, payload: bytes) -> Self:
        value: Any = parse_json(payload, limit=MAX_STATEMENT_BYTES)
        try:
            statement = cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise StatementError(
                "a {kind} is malformed at {where}: {what}",
                kind=cls.__name__,
                where=".".join(str(part) for part in first["loc"]) or "its top",
                what=first["msg"],
            ) from None
        if not restates(statement._said(), payload):
            raise StatementError("a {kind} is not in canonical form", kind=cls.__name__)
        return statement

    @classmethod
    def open(cls, envelope: Envelope, keys: Sequence[PublicKey], now: datetime) -> Self:
        """Parse, check that every key signed these bytes, and that the statement is in force at ``now``."""
        statement = cls.read(envelope)
        verify(envelope, cls.TYPE, keys)
        statement.check_time(now)
        return statement

    def check_time(self, now: datetime) -> None:
        """Raise unless issued (within the clock skew) and not expired at ``now``."""
        if self.issued > now + CLOCK_SKEW:
            raise NotYetValidError(
                "a {kind} is dated {issued}, but it is {now} here",
                hint="compare the clocks of both machines (timedatectl)",
                kind=type(self).__name__,
                issued=instant_text(self.issued),
                now=instant_text(now),
            )
        if now >= self.expires:
            raise ExpiredError(
                "a {kind} expired at {expires}; it is {now} here",
                kind=type(self).__name__,
                expires=instant_text(self.expires),
                now=instant_text(now),
            )


@cache
def _plain_validator(kind: type[Statement]) -> SchemaValidator | None:
    try:
        return plain_validator(kind, kind.LATER, _utc_seconds)
    except UnknownSchemaError:
        return None
