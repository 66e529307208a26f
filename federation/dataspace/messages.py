"""The protocol's messages: read strictly where something rests on them, written as the schemas have them.

JSON-LD lets a message hold more than its terms; what is not a term is passed over, and nothing rests on it. What rests
on a message is of one form only: the context is named, the type is exact, and texts are bounded.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from federation.crypto import MalformedError, canonical_json, parse_json
from federation.dataspace.terms import BODY_BYTES, CONTEXT, DEPTH, PID, STATEMENT
from federation.errors import UsageError
from federation.statements import Envelope

Name = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
Reasons = Annotated[tuple[Any, ...], Field(min_length=1, max_length=20)]


def _term(name: str) -> Any:
    return Field(validation_alias=name, serialization_alias=name)


Pid = Annotated[str, StringConstraints(pattern=PID)]
ConsumerPid = Annotated[Pid, _term("consumerPid")]
ProviderPid = Annotated[Pid, _term("providerPid")]


class MalformedMessageError(UsageError):
    """What arrived is no message of the protocol, or not the one that belongs here."""

    code = "malformed-message"


class Message(BaseModel):
    """What every message says; ``TYPE`` is its ``@type``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    TYPE: ClassVar[str] = ""

    context: Annotated[tuple[str, ...], Field(max_length=10), _term("@context")] = (CONTEXT,)
    type: Annotated[str, _term("@type")] = ""
    statement: Annotated[str | None, Field(max_length=BODY_BYTES), _term(STATEMENT)] = None

    @field_validator("context")
    @classmethod
    def _known_context(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if CONTEXT not in value:
            raise ValueError(f"the context {CONTEXT} is not named")
        return value

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Parse a body.

        Raises:
            MalformedMessageError: not JSON, too large, too deep, another type, or a term missing or of another form.
        """
        value = read_object(body)
        if value.get("@type") != cls.TYPE:
            raise MalformedMessageError(
                "a {wanted} belongs here, and this is a {got}", wanted=cls.TYPE, got=str(value.get("@type"))[:60]
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise MalformedMessageError(
                "the {kind} is malformed at {where}: {what}",
                kind=cls.TYPE,
                where="/".join(str(part) for part in first["loc"]) or "its top",
                what=first["msg"],
            ) from None

    def document(self) -> dict[str, Any]:
        """The message as JSON-LD, with what it leaves open left out."""
        return {**self.model_dump(mode="json", by_alias=True, exclude_none=True), "@type": self.TYPE}

    def to_bytes(self) -> bytes:
        """The message as it is sent."""
        return canonical_json(self.document())

    def envelope(self) -> Envelope | None:
        """The signed statement beside the message, not yet verified; None where there is none."""
        if self.statement is None:
            return None
        return unpack(self.statement)


def read_object(body: bytes) -> dict[str, Any]:
    """JSON of a message, refused where two readers could understand it differently."""
    try:
        value = parse_json(body, limit=BODY_BYTES, depth_limit=DEPTH)
    except MalformedError as error:
        raise _malformed(error) from None
    if not isinstance(value, dict):
        raise MalformedMessageError("a message is a JSON object")
    return value


def _malformed(error: MalformedError) -> MalformedMessageError:
    told: dict[str, Any] = dict(error.params)
    return MalformedMessageError(error.template, **told)


def pack(envelope: Envelope) -> str:
    """A signed statement as it stands beside a message."""
    return base64.b64encode(envelope.to_bytes()).decode()


def unpack(text: str) -> Envelope:
    """Read what :func:`pack` wrote; says nothing about its signatures."""
    try:
        return Envelope.from_bytes(base64.b64decode(text, validate=True))
    except (ValueError, MalformedError):
        raise MalformedMessageError("the signed statement beside the message cannot be read") from None


class _Process(Message):
    consumer_pid: ConsumerPid
    provider_pid: ProviderPid


class _Ending(_Process):
    code: Annotated[str, StringConstraints(max_length=100)] | None = None
    reason: Reasons | None = None

    @property
    def said(self) -> str:
        """Code and reasons in one line, as far as they are text."""
        parts = [self.code or "", *(one for one in self.reason or () if isinstance(one, str))]
        return "; ".join(part for part in parts if part)[:500]


class ContractRequest(Message):
    """A consumer asks for an agreement, or counters an offer."""

    TYPE: ClassVar[str] = "ContractRequestMessage"
    consumer_pid: ConsumerPid
    provider_pid: Annotated[Pid | None, _term("providerPid")] = None
    offer: dict[str, Any]
    callback: Annotated[Name | None, _term("callbackAddress")] = None


class ContractOffer(Message):
    """A provider offers an agreement, unasked or in answer."""

    TYPE: ClassVar[str] = "ContractOfferMessage"
    provider_pid: ProviderPid
    consumer_pid: Annotated[Pid | None, _term("consumerPid")] = None
    offer: dict[str, Any]
    callback: Annotated[Name | None, _term("callbackAddress")] = None


class NegotiationEvent(_Process):
    """The consumer accepts an offer; or the provider says that the agreement is in force."""

    TYPE: ClassVar[str] = "ContractNegotiationEventMessage"
    event: Annotated[Literal["ACCEPTED", "FINALIZED"], _term("eventType")]


class ContractAgreement(_Process):
    """The provider's agreement; the statement beside it bears the provider's signature."""

    TYPE: ClassVar[str] = "ContractAgreementMessage"
    agreement: dict[str, Any]


class AgreementVerification(_Process):
    """The consumer has verified; the statement beside it bears both signatures."""

    TYPE: ClassVar[str] = "ContractAgreementVerificationMessage"


class NegotiationTermination(_Ending):
    """Either side ends a negotiation."""

    TYPE: ClassVar[str] = "ContractNegotiationTerminationMessage"


class Negotiation(_Process):
    """How a negotiation stands."""

    TYPE: ClassVar[str] = "ContractNegotiation"
    state: Literal["REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED", "FINALIZED", "TERMINATED"]


class TransferRequest(Message):
    """A consumer asks for a compute grant under an agreement in force."""

    TYPE: ClassVar[str] = "TransferRequestMessage"
    consumer_pid: ConsumerPid
    agreement: Annotated[Name, _term("agreementId")]
    format: Name
    callback: Annotated[Name, _term("callbackAddress")]
    address: Annotated[Any, _term("dataAddress")] = None


class TransferStart(_Process):
    """The grant is live from now on."""

    TYPE: ClassVar[str] = "TransferStartMessage"


class TransferSuspension(_Ending):
    """The grant is interrupted: jobs under it stop."""

    TYPE: ClassVar[str] = "TransferSuspensionMessage"


class TransferCompletion(_Process):
    """The grant has served its purpose."""

    TYPE: ClassVar[str] = "TransferCompletionMessage"


class TransferTermination(_Ending):
    """Either side ends a grant."""

    TYPE: ClassVar[str] = "TransferTerminationMessage"


class Transfer(_Process):
    """How a transfer stands."""

    TYPE: ClassVar[str] = "TransferProcess"
    state: Literal["REQUESTED", "STARTED", "SUSPENDED", "COMPLETED", "TERMINATED"]


class CatalogRequest(Message):
    """Asks for a catalog. A filter is refused: there is none that all sides read alike."""

    TYPE: ClassVar[str] = "CatalogRequestMessage"
    filter: tuple[Any, ...] = ()


class DatasetRequest(Message):
    """Asks for one dataset."""

    TYPE: ClassVar[str] = "DatasetRequestMessage"
    dataset: Name


def error_document(kind: str, code: str, reason: str, consumer_pid: str = "", provider_pid: str = "") -> dict[str, Any]:
    """A ``ContractNegotiationError``, ``TransferError`` or ``CatalogError``."""
    pids = {} if kind == "CatalogError" else {"consumerPid": consumer_pid, "providerPid": provider_pid}
    return {"@context": [CONTEXT], "@type": kind, **pids, "code": code, "reason": [reason]}
