"""What is asked of an agreement at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from federation.statements import StageOutput


@dataclass(frozen=True, kw_only=True)
class Request:
    """One invocation as the node that judges it sees it; None is always "not known", and unknown never permits.

    Every value comes from a verified statement or from the node itself, none from the requester's word alone but the
    purpose, which is what the requester signed for.

    Attributes:
        action: ``fed:train`` or ``fed:evaluate``.
        purpose: as the job plan states it.
        requester: member id of whoever signed the job plan.
        code: digest of the job's code.
        tier: isolation that the job will really run in, ``T0`` to ``T3``.
        participants: distinct accepted legal entities in the cohort, without the requester's and the coordinator's own.
        columns: names of the columns the job will be shown.
        rules: digest of the owner's desensitisation rules in force; None where there are none.
        group_size: fewest subjects behind any figure that leaves: of a query's cells, of an intersection; otherwise rows of the
            dataset, at least, as the catalog says them. 0 where figures over any number leave (a query under noise).
        protection: ``fed:masked`` or ``fed:none``.
        now: the node's clock, with its zone.
        uses_taken: uses of this agreement reserved before this decision.
        continuing: the plan already holds its reserved use, which is among ``uses_taken``.
        recipients: member ids of all who will get the result.
        output_kinds: what the replies hold (:func:`output_kinds`).
        max_output_bytes: largest reply that the output gate will let through.
        entity: the requester's legal entity, for the record.
        consent: the owner's approval of this code in this use, as it goes on record; None where there is none.
        consent_missing: why there is none.
        reviewed: whether the owner releases each output by hand.
        leak_bits: bits that may have left under this agreement at the end of this plan, all its plans together.
        rho: micro-rho spent under this agreement at the end of this plan, all its plans together;
            :data:`~federation.policy.values.UNBOUNDED_RHO` where the plan adds no noise.
        slot_seconds: answers leave at whole multiples of this time; 0 as soon as they are there.
        elapsed: since the first use of the agreement began; nothing where this is the first.
        interval: since the last use before this one began; ``values.NEVER`` where there was none.
        metered: computed under the agreement, what this step may come to and what is reserved included.
        total_bytes: that left under the agreement, counted in the same way.
        paid: owed by the agreement's tariff, counted in the same way.
        place: where the node stands (ISO 3166), as its owner states it.
        industry: the requester's (GB/T 4754), as the owner states it.
        device: digest of the runtime that the job's code runs on.
        version: of the dataset: the digest of what was registered.
        events: what happened, as the owner states it, in that order.
        duties: how each tracked duty of the agreement stands (:func:`federation.policy.duty_text`).
    """

    action: str
    purpose: str | None
    requester: str | None
    code: str | None
    tier: str | None
    participants: int | None
    columns: tuple[str, ...] | None
    protection: str | None
    now: datetime | None
    uses_taken: int | None
    continuing: bool = False
    recipients: tuple[str, ...] | None = None
    output_kinds: tuple[str, ...] | None = None
    max_output_bytes: int | None = None
    entity: str | None = None
    consent: str | None = None
    consent_missing: str = ""
    reviewed: bool = False
    group_size: int | None = None
    leak_bits: int | None = None
    slot_seconds: int | None = None
    rules: str | None = None
    rho: int | None = None
    elapsed: timedelta | None = None
    interval: timedelta | None = None
    metered: timedelta | None = None
    total_bytes: int | None = None
    paid: Decimal | None = None
    place: str | None = None
    industry: str | None = None
    device: str | None = None
    version: str | None = None
    events: tuple[str, ...] | None = None
    duties: Mapping[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        """Uses of the agreement with this one among them; None where the number taken is unknown or cannot be right."""
        if not isinstance(self.uses_taken, int) or isinstance(self.uses_taken, bool):
            return None
        if not self.continuing:
            return self.uses_taken + 1 if self.uses_taken >= 0 else None
        # A plan that goes on holds a reservation: a count of none contradicts that, so neither can be trusted.
        return self.uses_taken if self.uses_taken >= 1 else None

    def operand(self, left: str) -> object:
        """The value this request brings for a left operand; None for operands it knows nothing about."""
        field_name = FIELDS.get(left)
        return None if field_name is None else getattr(self, field_name)


FIELDS = {
    "odrl:purpose": "purpose",
    "odrl:count": "count",
    "odrl:dateTime": "now",
    "odrl:recipient": "recipients",
    "fed:codeDigest": "code",
    "fed:minTier": "tier",
    "fed:minParticipants": "participants",
    "fed:minGroupSize": "group_size",
    "fed:protection": "protection",
    "fed:column": "columns",
    "fed:rules": "rules",
    "fed:outputKind": "output_kinds",
    "fed:maxOutputBytes": "max_output_bytes",
    "fed:maxLeakBits": "leak_bits",
    "fed:releaseSlot": "slot_seconds",
    "fed:rho": "rho",
    "fed:totalOutputBytes": "total_bytes",
    "odrl:elapsedTime": "elapsed",
    "odrl:timeInterval": "interval",
    "odrl:meteredTime": "metered",
    "odrl:payAmount": "paid",
    "odrl:spatial": "place",
    "odrl:industry": "industry",
    "odrl:systemDevice": "device",
    "odrl:version": "version",
    "odrl:event": "events",
}
"""The attribute of a request that each left operand is judged by."""


def output_kinds(output: StageOutput) -> tuple[str, ...]:
    """The kinds of output a stage's schema lets out, in the words of ``fed:outputKind``."""
    kinds = (
        ("fed:ModelUpdate", output.sent),
        ("fed:Arrays", bool(output.arrays)),
        ("fed:Metrics", bool(output.metrics)),
    )
    return tuple(kind for kind, present in kinds if present)
