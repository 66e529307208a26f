"""What is asked of an agreement at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

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
        slot_seconds: answers leave at whole multiples of this time; 0 as soon as they are there.
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
    leak_bits: int | None = None
    slot_seconds: int | None = None
    rules: str | None = None

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
        values: dict[str, object] = {
            "odrl:purpose": self.purpose,
            "odrl:count": self.count,
            "odrl:dateTime": self.now,
            "odrl:recipient": self.recipients,
            "fed:codeDigest": self.code,
            "fed:minTier": self.tier,
            "fed:minParticipants": self.participants,
            "fed:protection": self.protection,
            "fed:column": self.columns,
            "fed:rules": self.rules,
            "fed:outputKind": self.output_kinds,
            "fed:maxOutputBytes": self.max_output_bytes,
            "fed:maxLeakBits": self.leak_bits,
            "fed:releaseSlot": self.slot_seconds,
        }
        return values.get(left)


def output_kinds(output: StageOutput) -> tuple[str, ...]:
    """The kinds of output a stage's schema lets out, in the words of ``fed:outputKind``."""
    kinds = (
        ("fed:ModelUpdate", output.sent),
        ("fed:Arrays", bool(output.arrays)),
        ("fed:Metrics", bool(output.metrics)),
    )
    return tuple(kind for kind, present in kinds if present)
