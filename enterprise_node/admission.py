"""Stage one of the line: are these statements what they claim to be, in force, new, and meant for this node?

Pure: statements, roster history and a clock in; what was admitted out. Nothing is believed because a link delivered it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from federation.errors import KeyongError
from federation.statements import (
    Agreement,
    Envelope,
    Invocation,
    JobPlan,
    PlannedDataset,
    RosterHistory,
    StatementError,
    open_agreement,
)


class AdmissionError(StatementError):
    """A plan or invocation does not fit this node, this roster or each other."""

    code = "admission"


@dataclass(frozen=True)
class AdmittedPlan:
    """A plan this node may decide on: verified, in force, naming this node, with its agreement."""

    envelope: Envelope
    plan: JobPlan
    mine: PlannedDataset
    agreement: Agreement
    agreement_digest: str
    entities: frozenset[str]
    """Distinct legal entities of the cohort, without the requester's and the coordinator's own."""
    requester_entity: str

    @property
    def digest(self) -> str:
        """Digest of the plan."""
        return self.envelope.digest


def admit_plan(
    envelope: Envelope,
    *,
    node: str,
    history: RosterHistory,
    find_agreement: Callable[[str], Envelope],
    runtime: str,
    now: datetime,
) -> AdmittedPlan:
    """Verify a plan for this node.

    Raises:
        VerificationError subclasses: signature, expiry, roster, or a plan that is not for this node.
        KeyongError from ``find_agreement`` where the agreement is not in force here.
    """
    roster = history.in_force(now)
    claimed = JobPlan.read(envelope)
    requester = roster.member(claimed.requester)
    plan = JobPlan.open(envelope, [requester.public], now)
    named = history.by_digest(plan.roster)
    for planned in plan.cohort:
        # Same keys then and now: a cohort member that was removed or replaced since is a different cohort.
        if named.member(planned.node).statement_key != roster.member(planned.node).statement_key:
            raise AdmissionError("the cohort changed since the plan was signed", hint="plan the job again", code="roster-changed")
    coordinator = roster.member(plan.coordinator, "coordinator")
    mine = plan.at(node)
    if plan.runtime != runtime:
        raise AdmissionError(
            "the plan names runtime {planned}, this node has {here}",
            hint="install the same runtime on every node (`keyong node runtime show`)",
            code="runtime-differs",
            planned=plan.runtime[:19],
            here=runtime[:19],
        )
    agreement_envelope = find_agreement(mine.agreement)
    agreement = open_agreement(agreement_envelope, lambda member: roster.member(member).public, now)
    if agreement.provider != node or agreement.consumer != plan.requester or agreement.dataset != mine.dataset:
        raise AdmissionError("the agreement is not between these parties about this dataset", code="agreement-mismatch")
    outside = {requester.entity, coordinator.entity}
    entities = frozenset(roster.member(planned.node).entity for planned in plan.cohort) - outside
    return AdmittedPlan(envelope, plan, mine, agreement, agreement_envelope.digest, entities, requester.entity)


@dataclass(frozen=True)
class AdmittedStep:
    """One step of an admitted plan, with the content it was signed for."""

    admitted: AdmittedPlan
    envelope: Envelope
    invocation: Invocation


def admit_step(
    admitted: AdmittedPlan, envelope: Envelope, *, node: str, history: RosterHistory, content: str, now: datetime
) -> AdmittedStep:
    """Verify one invocation against its plan and the content that came with it."""
    roster = history.in_force(now)
    plan = admitted.plan
    invocation = Invocation.open(envelope, [roster.member(plan.coordinator, "coordinator").public], now)
    plan.check_time(now)
    if invocation.plan != admitted.digest or invocation.node != node:
        raise AdmissionError("the invocation is for another plan or node", code="invocation-mismatch")
    if invocation.content != content:
        raise AdmissionError("the content is not what the invocation was signed for", code="content-mismatch")
    if invocation.action not in plan.actions:
        raise AdmissionError("the plan does not hold the action {action}", code="action-not-planned", action=invocation.action)
    if invocation.round > 2 * plan.rounds + 1:
        raise AdmissionError("the plan ends after {rounds} rounds", code="rounds-exceeded", rounds=plan.rounds)
    return AdmittedStep(admitted, envelope, invocation)


def code_of(error: KeyongError) -> str:
    """The closed code under which a refusal leaves."""
    return error.code
