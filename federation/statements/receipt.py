"""Receipts: what a node says happened, signed, an entry of its ledger."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from federation.statements._base import (
    Count,
    DatasetId,
    Decimal,
    Digest,
    Instant,
    MemberId,
    OptionalDigest,
    Part,
    Statement,
)

Outcome = Literal["ok", "denied", "failed", "killed"]
Short = Annotated[str, StringConstraints(max_length=400)]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{0,64}$")]


class Judged(Part):
    """One constraint with the value it was judged by."""

    operand: Short
    operator: Short
    right: Short
    left: Short
    """The value found here when it was judged; empty where none could be found (then it is not satisfied)."""
    satisfied: bool
    note: Short = ""


class DecisionRecord(Part):
    """Permit or deny, under which agreement, and every constraint as judged."""

    permit: bool
    agreement: OptionalDigest = ""
    rule: Short = ""
    """The clause that decided: ``permission/0``, ``prohibition/1`` or the name of the refusal."""
    constraints: Annotated[tuple[Judged, ...], Field(max_length=200)] = ()


class Isolation(Part):
    """What held the job: the sandbox tier and the digests that pin how it was built."""

    tier: Annotated[str, StringConstraints(pattern=r"^(T[0-3])?$")] = ""
    kernel: Short = ""
    landlock_abi: Count = 0
    seccomp: OptionalDigest = ""
    arguments: OptionalDigest = ""
    limits_by: Short = ""


class Metered(Part):
    """What a step took, or may take: seconds of computing, and bytes of its reply."""

    seconds: Count
    bytes: Count


class Receipt(Statement):
    """The outcome of one invocation at one node."""

    TYPE: ClassVar[str] = "application/vnd.keyong.receipt.v1+json"
    CLOSED: ClassVar[bool] = True
    LATER: ClassVar[tuple[str, ...]] = ("rules", "metered")

    node: MemberId
    plan: Digest
    invocation: Digest
    round: Count
    attempt: Count = 1
    stage: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,39}$")]
    intent: Annotated[int, Field(ge=-1, le=2**53 - 1)]
    """Index of the INTENT entry in the node's ledger; -1 where the refusal came before one."""
    outcome: Outcome
    code: Code = ""
    """Why not ok; a member of the closed enumeration of refusals."""
    decision: DecisionRecord
    dataset: DatasetId
    data_version: OptionalDigest = ""
    snapshot: OptionalDigest = ""
    rules: OptionalDigest = ""
    """Digest of the owner's desensitisation rules that the snapshot was made by; empty where there are none."""
    code_digest: Digest
    runtime: Digest
    isolation: Isolation
    input: Digest
    output: OptionalDigest = ""
    output_bytes: Count = 0
    weight: Count = 0
    """Rows of the snapshot as the trusted line counted them; 0 where the reply is masked and the weight is hidden."""
    saturated: Count = 0
    normalised: Count = 0
    """Both 0 since release 0.3: how many values met a bound or were set to zero is for the owner alone, since a job's code
    could spell with the numbers."""
    protection: Annotated[str, StringConstraints(max_length=40)]
    exception: Short = ""
    """In words, the clause of the company's own agreement this rests on; empty where no exception was used."""
    started: Instant
    ended: Instant
    micro_rho: Count = 0
    leak_bits: Count = 0
    cost: Decimal = "0"
    """Price of the use that the step belongs to; one use is one job."""
    metered: Metered | None = None
    """Where the agreement counts time, volume or money: what the step is charged with."""
