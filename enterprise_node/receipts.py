"""Receipts as this node writes them: of a step that ran, of one that was refused, of one that a crash cut short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from enterprise_node.admission import AdmittedStep
from enterprise_node.output_summary import OutputSummary
from federation.errors import KeyongError
from federation.secagg import OUTCOME_BITS
from federation.statements import DecisionRecord, Envelope, Invocation, Isolation, JobPlan, Metered, Receipt
from federation.statements.receipt import Outcome
from federation.wire.body import Buffer, total_bytes

RECEIPT_VALIDITY = timedelta(days=3650)
"""A receipt is evidence; it does not lapse with the agreement it rests on."""

UNPROTECTED = "unprotected updates, permitted in words by the agreement: fed:protection fed:none"


NOISELESS = "rho: unbounded, answers without noise, permitted in words by the agreement: fed:rho fed:unbounded"


BILATERAL = "a figure about this company alone, permitted in words by the agreement: fed:protection fed:bilateral"


BY_CODE = "rho by the owner's approval of the code, whose noise this node cannot check"


def exception_of(plan: JobPlan, unbounded: bool) -> str:
    """In words, what of the company's own agreement a step rests on that it would not be permitted without."""
    found = [UNPROTECTED] if plan.protection == "fed:none" else []
    if plan.bilateral is not None:
        found.append(BILATERAL)
    if plan.micro_rho and not plan.gate_noise:
        found.append(BY_CODE)
    return "; ".join(found + ([NOISELESS] if unbounded and not plan.micro_rho else []))


@dataclass(frozen=True)
class Done:
    """What one run of the line produced: the reply as it leaves, and what its receipt says of it."""

    buffers: list[Buffer]
    header: str
    digest: str
    weight: int
    normalised: int
    saturated: int
    """Both for the owner alone, and in no receipt: a job's code could spell with them."""
    leak_bits: int = 0
    padding: int = 0
    """What is missing from the header to the length that all replies of the stage have."""
    summary: OutputSummary | None = None
    """For the owner, where the agreement has each output reviewed."""


@dataclass(frozen=True)
class Held:
    """What held a step: the snapshot it read and the session it ran in, where it came that far."""

    snapshot: str = ""
    """Digest of the snapshot."""
    isolation: Isolation = field(default_factory=Isolation)
    rules: str = ""
    """Digest of the desensitisation rules it was made by."""
    values: Mapping[str, str] = field(default_factory=dict)
    """What tells one reading of a live source from another; empty for others."""


def of_step(
    step: AdmittedStep,
    intent: int,
    decision: DecisionRecord,
    held: Held,
    *,
    outcome: Outcome,
    code: str,
    done: Done | None,
    runtime: str,
    started: datetime,
    ended: datetime,
    drawn: int = 0,
    metered: Metered | None = None,
) -> Receipt:
    """The receipt of a step that had its INTENT.

    Args:
        drawn: micro-rho that it drew: spent, unless it failed before anything could leave.
    """
    admitted, invocation, plan = step.admitted, step.invocation, step.admitted.plan
    return Receipt(
        issued=ended,
        expires=ended + RECEIPT_VALIDITY,
        node=admitted.mine.node,
        plan=admitted.digest,
        invocation=step.envelope.digest,
        round=invocation.round,
        attempt=invocation.attempt,
        stage=invocation.stage,
        intent=intent,
        outcome=outcome,
        code=code,
        decision=decision,
        dataset=admitted.mine.dataset,
        data_version=admitted.mine.data_version,
        snapshot=held.snapshot,
        rules=held.rules,
        code_digest=plan.code,
        runtime=runtime,
        isolation=held.isolation,
        input=invocation.content,
        output=done.digest if done else "",
        output_bytes=total_bytes(done.buffers) if done else 0,
        weight=done.weight if done else 0,
        protection=plan.protection,
        exception=exception_of(plan, admitted.demands(invocation.action).unbounded),
        started=started,
        ended=ended,
        micro_rho=spent(drawn, outcome),
        leak_bits=done.leak_bits if done else OUTCOME_BITS,
        cost=admitted.agreement.cost,
        metered=metered,
    )


def spent(drawn: int, outcome: Outcome) -> int:
    """What a step costs in the end. One that was killed may have left in part, so it pays in full."""
    return 0 if outcome in ("denied", "failed") else drawn


def of_refusal(
    node: str, plan: JobPlan, plan_digest: str, envelope: Envelope, code: str, decision: DecisionRecord, now: datetime
) -> Receipt | None:
    """The receipt of a plan or an invocation that was refused before an INTENT; None where it cannot be read as one."""
    try:
        mine = plan.at(node)
        step = None if envelope.payload_type == JobPlan.TYPE else Invocation.read(envelope)
    except KeyongError:
        return None
    return Receipt(
        issued=now,
        expires=now + RECEIPT_VALIDITY,
        node=node,
        plan=plan_digest,
        invocation=envelope.digest,
        round=step.round if step else 0,
        attempt=step.attempt if step else 1,
        stage=step.stage if step else "open",
        intent=-1,
        outcome="denied",
        code=code,
        decision=decision,
        dataset=mine.dataset,
        data_version=mine.data_version,
        code_digest=plan.code,
        runtime=plan.runtime,
        isolation=Isolation(),
        input=step.content if step else envelope.digest,
        protection=plan.protection,
        started=now,
        ended=now,
    )
