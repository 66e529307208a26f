"""The methods of the link and the header of each: strict models, canonical JSON on the wire."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.crypto import canonical_json, parse_json
from federation.errors import VerificationError
from federation.statements import MASKED_COHORT, Envelope
from federation.wire.peer import HEADER_BYTES
from federation.wire.protocol import PROTOCOL as PROTOCOL


class MessageError(VerificationError):
    """A header is not what its method takes."""

    code = "message"


class Message(BaseModel):
    """A header; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_bytes(self) -> bytes:
        """Canonical JSON; floats may stand here, for headers are neither hashed nor signed."""
        return canonical_json(self.model_dump(mode="json"), allow_floats=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse a header strictly."""
        try:
            return cls.model_validate(parse_json(data, limit=HEADER_BYTES, allow_floats=True))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise MessageError(
                "a {kind} message is malformed at {where}: {what}",
                kind=cls.__name__,
                where=".".join(str(part) for part in first["loc"]) or "its top",
                what=first["msg"],
            ) from None


EnvelopeText = Annotated[str, Field(max_length=HEADER_BYTES)]


def pack(envelope: Envelope) -> str:
    """An envelope as it stands inside a header."""
    return base64.b64encode(envelope.to_bytes()).decode()


def unpack(text: str) -> Envelope:
    """Read an envelope from a header."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise MessageError("an envelope in a message is not base64") from None
    return Envelope.from_bytes(data)


class Hello(Message):
    """First exchange on a link: who speaks which versions, and what this end serves."""

    lowest: Annotated[int, Field(ge=0, le=2**31)]
    highest: Annotated[int, Field(ge=0, le=2**31)]
    software: Annotated[str, Field(max_length=64)]
    serves: Literal["node", "client", "dataspace"]
    roster_version: int


class DataspaceAsk(Message):
    """A request for a member's dataspace endpoints, as the gateway was given it; its body follows."""

    method: Annotated[str, Field(max_length=10)]
    path: Annotated[str, Field(max_length=2000)]
    token: Annotated[str, Field(max_length=16384)]


class DataspaceReply(Message):
    """The member's answer, and its signature under it; its body follows."""

    status: Annotated[int, Field(ge=200, le=599)]
    token: Annotated[str, Field(max_length=16384)]


class DataspaceGateway(Message):
    """Where the coordinator serves its gateway; empty where it serves none."""

    url: Annotated[str, Field(max_length=300)] = ""


class Welcome(Message):
    """The coordinator's answer: the version to speak, and the rosters the member has not seen."""

    version: int
    software: str
    rosters: tuple[EnvelopeText, ...]
    clock: str


class Empty(Message):
    """A header with nothing in it."""


class Envelopes(Message):
    """Statements, in the order the method gives them."""

    envelopes: tuple[EnvelopeText, ...] = ()


class RosterSince(Message):
    """Asks for every roster after a version."""

    after: int


class Entry(Message):
    """A catalog entry and whether its node is connected."""

    envelope: EnvelopeText
    online: bool
    runtime: str = ""


class Catalog(Message):
    """All published datasets."""

    entries: tuple[Entry, ...]


class Publish(Message):
    """A node's datasets, all of them, and the runtime it runs jobs with."""

    datasets: tuple[EnvelopeText, ...]
    runtime: Annotated[str, Field(max_length=80)]


class Mail(Message):
    """A signed statement from one member to another; the coordinator carries it unread."""

    to: str
    envelope: EnvelopeText


class MailItem(Message):
    """A delivered statement, numbered in the receiver's box."""

    number: Annotated[int, Field(ge=1, le=2**53 - 1)]
    sender: str
    arrived: str
    envelope: EnvelopeText


class MailSince(Message):
    """Asks for mail after a number."""

    after: int


class MailBox(Message):
    """Mail in order."""

    items: tuple[MailItem, ...]


class Submit(Message):
    """A signed plan; its code travels as the body."""

    plan: EnvelopeText


class JobRef(Message):
    """Names a job by its plan's id."""

    job: str


class EventsSince(Message):
    """Asks for a job's events after a number, waiting up to ``wait`` seconds for the first."""

    job: str
    after: int
    wait: Annotated[float, Field(ge=0, le=60)] = 20.0


class Event(Message):
    """Something that happened in a job; ``kind`` and ``data`` are part of the JSON interface."""

    number: int
    time: str
    kind: str
    data: dict[str, Any]


class Events(Message):
    """Events in order, and the job's status."""

    events: tuple[Event, ...]
    status: str


class JobSummary(Message):
    """One job as the coordinator lists it."""

    job: str
    plan: str
    requester: str
    purpose: str
    status: str
    rounds: int
    rounds_done: int
    submitted: str
    participants: int
    protection: str
    place: int = 0
    """In the queue, from 1; 0 where it does not wait."""
    waiting: int = 0
    """How many jobs wait; 0 where this one does not."""
    exchange: int = 0
    """At which exchange an interrupted job goes on; 0 for one that cannot."""
    exchanges: int = 0
    """About how many it has."""


class Jobs(Message):
    """Jobs, newest first."""

    jobs: tuple[JobSummary, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON; what protocol 1 does not know stands there only where it says something."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True), allow_floats=True)


class ResultFile(Message):
    """One file of a result; the body holds them one after another."""

    path: str
    size: int


class Result(Message):
    """A job's result: summary, receipts, and the files in the body."""

    summary: dict[str, Any]
    files: tuple[ResultFile, ...]


class ProveReceipts(Message):
    """Requester, by way of the coordinator, to a node: prove entries of your ledger under a cosigned checkpoint."""

    node: str
    job: str
    plan: str
    """Digest of the plan that the entries have to be of."""
    entries: Annotated[tuple[Annotated[int, Field(ge=0, le=2**53 - 1)], ...], Field(min_length=1, max_length=5000)]
    since: Annotated[tuple[Annotated[int, Field(ge=1, le=2**53 - 1)], ...], Field(max_length=8)] = ()
    """Sizes of checkpoints that the requester holds of this ledger: show that what is proved extends them."""


class ReceiptProofs(Message):
    """The node's answer: a checkpoint with its cosignatures, and how many hashes prove each entry, and that it extends each
    size asked for; they are the body, one after another."""

    checkpoint: Annotated[str, Field(max_length=200_000)]
    """The signed note, in base64."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(max_length=5000)]
    extends: Annotated[tuple[Annotated[int, Field(ge=0, le=128)], ...], Field(max_length=8)] = ()


class JobOpen(Message):
    """Coordinator to node: a plan that names it; its code travels as the body where the node lacks it."""

    plan: EnvelopeText
    node_number: Annotated[int, Field(ge=1, le=2**53 - 1)]
    """The random id under which the job's server part knows this node; job code at the node sees one that the node draws."""


class JobOpened(Message):
    """The node's answer: would it permit this plan now (nothing is reserved yet)?"""

    permitted: bool
    code: str = ""
    receipt: EnvelopeText = ""


class Invoke(Message):
    """Coordinator to node: one step. The body is the content."""

    invocation: EnvelopeText
    content: str
    """Header of the content as the codec wrote it; its digest is in the invocation."""
    body: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    """Digest of the body, of which and of the header the content's digest is then made; since protocol 2."""
    withheld: bool = False
    """The node holds this body, so it was not sent again."""
    boxes: Annotated[tuple[EnvelopeText, ...], Field(max_length=MASKED_COHORT)] = ()
    """Sealed shares for this node, with the first round whose keys they are for; since protocol 3."""

    def to_bytes(self) -> bytes:
        """Canonical JSON; what protocol 1 does not know stands there only where it says something."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True), allow_floats=True)


class Invoked(Message):
    """The node's answer to a step: its signed receipt with the proof beside it; the body is the encoded reply.

    A masked vector leaves before there is a receipt: then ``masked`` is the node's signed word on the body, and receipt and
    proof come with the shares.
    """

    receipt: EnvelopeText = ""
    proof: str = ""
    reply: str = ""
    padding: str = ""
    """Spaces that bring all replies of a stage to one length; sent where the plan has time slots."""
    masked: EnvelopeText = ""

    def to_bytes(self) -> bytes:
        """Canonical JSON; without padding and masks as parties read it that know none."""
        left_out = {name for name in ("padding", "masked") if not getattr(self, name)}
        return canonical_json(self.model_dump(mode="json", exclude=left_out), allow_floats=True)


class MaskKeys(Message):
    """Coordinator to node, since protocol 3: announce keys for some rounds of a job."""

    plan: str
    participants: Annotated[tuple[str, ...], Field(max_length=MASKED_COHORT)]
    first: Annotated[int, Field(ge=1, le=200_000)]
    attempt: Annotated[int, Field(ge=1, le=1000)]
    rounds: Annotated[int, Field(ge=1, le=32)]


class MaskShares(Message):
    """Coordinator to node: all announcements; the answer holds its sealed shares."""

    plan: str
    announcements: Annotated[tuple[EnvelopeText, ...], Field(max_length=MASKED_COHORT)]


class MaskSurvivors(Message):
    """Coordinator to node: whose masked vectors it adds, and the word of each of them; the answer acknowledges."""

    plan: str
    survivors: EnvelopeText
    inputs: Annotated[tuple[EnvelopeText, ...], Field(max_length=MASKED_COHORT)]
    withdrawals: Annotated[tuple[EnvelopeText, ...], Field(max_length=MASKED_COHORT)] = ()


class MaskOpen(Message):
    """Coordinator to node: enough nodes acknowledged; the answer holds the node's shares."""

    plan: str
    acknowledgements: Annotated[tuple[EnvelopeText, ...], Field(max_length=MASKED_COHORT)]
    withdrawals: Annotated[tuple[EnvelopeText, ...], Field(max_length=MASKED_COHORT)] = ()


class MaskAbort(Message):
    """Coordinator to node: this attempt of a round is given up; the answer is the receipt of its step."""

    plan: str
    round: Annotated[int, Field(ge=1, le=200_000)]
    attempt: Annotated[int, Field(ge=1, le=1000)]


class Opening(Message):
    """The node's answer: its receipt with the proof beside it and, where it opened the round, its shares."""

    receipt: EnvelopeText
    proof: str = ""
    shares: EnvelopeText = ""


class JobClose(Message):
    """Coordinator to node: the job has ended; its session and snapshot go."""

    plan: str


class WitnessAsk(Message):
    """A ledger's new state for a member's witness (C2SP tlog-witness); the coordinator carries it unread."""

    witness: str
    """The member whose witness is asked."""
    request: Annotated[str, Field(max_length=200_000)]
    """The request's body, in base64."""


class WitnessAnswer(Message):
    """What the witness said, as HTTP would."""

    status: Annotated[int, Field(ge=200, le=599)]
    body: Annotated[str, Field(max_length=2000)] = ""
    """A cosignature's line, or the size that was seen last."""


class Status(Message):
    """What the coordinator says of itself and its links."""

    consortium: str
    name: str
    roster_version: int
    online: tuple[str, ...]
    jobs_running: int
