"""What one party's history says about jobs, gathered while it is verified: the material of a reconciliation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from federation.ledger import Entry
from federation.statements import Envelope, JobPlan, ResultAcknowledgement

KINDS = frozenset({"plan", "result", "receipts", "not-taken", "ack", "job", "intent", "outcome", "denied"})


@dataclass(frozen=True, slots=True)
class Step:
    """A node's INTENT."""

    entry: int
    invocation: str
    requester: str


@dataclass(frozen=True, slots=True)
class Given:
    """A receipt in a node's own history; ``entry`` is its OUTCOME's or its refusal's."""

    entry: int
    digest: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Holds:
    """A receipt as a requester holds it: at which entry of the node's ledger, and on record at which of its own."""

    entry: int
    at: int


@dataclass(frozen=True, slots=True)
class Told:
    """A requester's signed acknowledgement, where it stands and what it says."""

    entry: int
    digest: str
    said: ResultAcknowledgement


@dataclass
class Job:
    """Everything one history says of one plan (see the kinds of entries in docs/ledger.md)."""

    asked: int | None = None
    plan: JobPlan | None = None
    """Only where it is the very plan that the digest names."""
    result: int | None = None
    holds: dict[str, dict[str, Holds]] = field(default_factory=lambda: defaultdict(dict))
    """By node, the receipts that the requester holds, by their digest."""
    not_taken: int | None = None
    acks: list[Told] = field(default_factory=list)
    submitted: int | None = None
    requester: str = ""
    delivered: list[int] = field(default_factory=list)
    ended: int | None = None
    end: str = ""
    counted: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By node, number and digest of the receipts that the coordinator had at the job's end."""
    steps: list[Step] = field(default_factory=list)
    given: dict[str, Given] = field(default_factory=dict)
    """By digest."""


@dataclass
class Facts:
    """What the history of ``member`` says; hand :meth:`on_entry` to ``verify_ledger``, in one process.

    Attributes:
        jobs: by the plan's digest.
        sealed: entries of each kind that may be of any job, because what they say was erased or not disclosed.
        notes: checkpoints of others' ledgers that it holds: node, the note, and at which entry.
        closed: entries that another one settles: INTENTs with their OUTCOME.
        size: how many entries were seen.
    """

    member: str
    jobs: dict[str, Job] = field(default_factory=lambda: defaultdict(Job))
    sealed: Counter[str] = field(default_factory=Counter)
    notes: list[tuple[str, bytes, int]] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)
    size: int = 0

    def on_entry(self, entry: Entry, fields: Mapping[str, Any]) -> int:
        """Take one entry with its opened values."""
        self.size = entry.index + 1
        if entry.kind in ("outcome", "aborted") and entry.ref is not None:
            self.closed.add(entry.ref)
        if entry.kind not in KINDS:
            return 0
        key = "digest" if entry.kind == "plan" else "plan"
        name = fields.get(key)
        if not isinstance(name, str) or not name:
            self.sealed[entry.kind] += key in entry.fields and key not in fields
            return 0
        take = getattr(self, f"_take_{entry.kind.replace('-', '_')}")
        take(self.jobs[name], entry, fields)
        return 0

    def _take_plan(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        job.asked = entry.index
        if isinstance(fields.get("plan"), bytes):
            envelope = Envelope.from_bytes(fields["plan"])
            if envelope.digest == fields["digest"]:  # else it is another plan's text under this one's name
                job.plan = JobPlan.read(envelope)

    def _take_result(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        job.result = entry.index

    def _take_not_taken(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        job.not_taken = entry.index

    def _take_receipts(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        node, rows = fields.get("node"), fields.get("receipts")
        if not isinstance(node, str) or not isinstance(rows, list):
            self.sealed["receipts"] += 1
            return
        for index, digest in rows:
            job.holds[node][str(digest)] = Holds(int(index), entry.index)
        if note := fields.get("checkpoint"):
            self.notes.append((node, str(note).encode(), entry.index))

    def _take_ack(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        if not isinstance(fields.get("ack"), bytes):
            self.sealed["ack"] += 1
            return
        envelope = Envelope.from_bytes(fields["ack"])
        job.acks.append(Told(entry.index, envelope.digest, ResultAcknowledgement.read(envelope)))

    def _take_job(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        match event := str(fields.get("event", "")):
            case "submitted":
                job.submitted, job.requester = entry.index, str(fields.get("requester", ""))
            case "delivered":
                job.delivered.append(entry.index)
            case "resumed":
                job.ended = None
            case _:
                job.ended, job.end = entry.index, event
                counted = fields.get("receipts")
                if isinstance(counted, dict):
                    job.counted = {node: (int(one["count"]), str(one["digest"])) for node, one in counted.items()}

    def _take_intent(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        sealed = fields.get("invocation")
        invocation = Envelope.from_bytes(sealed).digest if isinstance(sealed, bytes) else ""
        job.steps.append(Step(entry.index, invocation, str(fields.get("requester", ""))))

    def _take_outcome(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        if not isinstance(fields.get("receipt"), bytes):
            self.sealed["outcome"] += 1
            return
        digest = Envelope.from_bytes(fields["receipt"]).digest
        job.given[digest] = Given(entry.index, digest, str(fields.get("outcome", "")))

    def _take_denied(self, job: Job, entry: Entry, fields: Mapping[str, Any]) -> None:
        if isinstance(fields.get("receipt"), bytes):
            digest = Envelope.from_bytes(fields["receipt"]).digest
            job.given[digest] = Given(entry.index, digest, "denied")
