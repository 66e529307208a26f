"""Stage one of the line: are these statements what they claim to be, in force, new, and meant for this node?

Pure: statements, roster history and a clock in; what was admitted out. Nothing is believed because a link delivered it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from federation.crypto import PublicKey
from federation.keyring import signing_key
from federation.policy import (
    Demands,
    Measures,
    Policy,
    check_parties,
    demanded_tier,
    demands,
    measures,
    parse_policy,
    shown_columns,
    tariff_of,
)
from federation.secagg import worst_bits
from federation.statements import (
    Agreement,
    Envelope,
    Invocation,
    JobPlan,
    PlannedDataset,
    Roster,
    RosterHistory,
    StatementError,
    UnknownMemberError,
    instant_text,
    open_agreement,
)
from federation.statements.roster import DEFAULT_TIER

NO_ISOLATION = "T0"
"""The tier of development; made-up data, plan and agreement that name it, a node whose owner accepted it."""


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
    members: Mapping[str, str] = field(default_factory=dict)
    """Legal entity of each node of the cohort."""
    outside: frozenset[str] = frozenset()
    """The requester's and the coordinator's entities, which do not count toward a minimum."""

    @property
    def digest(self) -> str:
        """Digest of the plan."""
        return self.envelope.digest

    @cached_property
    def policy(self) -> Policy:
        """The agreement's policy."""
        return parse_policy(self.agreement.policy)

    def demands(self, action: str) -> Demands:
        """What the agreement wants done around an action."""
        if action not in self._demands:
            self._demands[action] = demands(self.policy, action)
        return self._demands[action]

    @cached_property
    def _demands(self) -> dict[str, Demands]:
        return {}

    def shown(self, action: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        """The columns that an action may see of those that the dataset has."""
        key = (action, columns)
        if key not in self._shown:
            self._shown[key] = shown_columns(self.policy, action, columns)
        return self._shown[key]

    @cached_property
    def _shown(self) -> dict[tuple[str, tuple[str, ...]], tuple[str, ...]]:
        return {}

    def check_fits(self) -> None:
        """Raise PolicyError unless the policy is about what the agreement around it is about.

        Neither ever changes, so it is judged once for all steps of a plan.
        """
        assert self._fits

    @cached_property
    def _fits(self) -> bool:
        check_parties(self.agreement, self.policy)
        return True

    def measures(self, action: str) -> Measures:
        """What the agreement counts over all its uses for an action: time, volume, money."""
        if action not in self._measures:
            self._measures[action] = measures(self.policy, tariff_of(self.agreement), action)
        return self._measures[action]

    @cached_property
    def _measures(self) -> dict[str, Measures]:
        return {}

    @cached_property
    def leak_bound(self) -> int:
        """Bits that the whole plan may carry out of this node, where it states them or its agreement wants them bounded;
        0 where neither does, and what leaves is added up alone."""
        wanted = [self.demands(action) for action in self.plan.actions]
        if self.plan.leak_bits or any(one.approval or one.leak_bounded for one in wanted):
            return worst_bits(self.plan)
        return 0


def admit_plan(
    envelope: Envelope,
    *,
    node: str,
    history: RosterHistory,
    find_agreement: Callable[[str], Envelope],
    runtime: str,
    tier: str,
    now: datetime,
    restored: datetime | None = None,
    renewed: datetime | None = None,
) -> AdmittedPlan:
    """Verify a plan for this node, whose sessions are isolated at ``tier`` (see ``sandbox.Tier``).

    Args:
        restored: when this node was made anew from a backup, if it was. Its ledger may lack steps of older plans, which
            would be taken again; those of a newer plan it has all, for an invocation names its plan by digest.
        renewed: when a new ledger followed a lost one here, if it did: it knows nothing of what agreements had used before.

    Raises:
        VerificationError subclasses: signature, expiry, roster, or a plan that is not for this node.
        KeyongError from ``find_agreement`` where the agreement is not in force here.
    """
    roster = history.in_force(now)
    claimed = JobPlan.read(envelope)
    requester = roster.member(claimed.requester)
    plan = JobPlan.open(envelope, [requester.public], now)
    if restored is not None and plan.issued < restored:
        raise AdmissionError(
            "the plan is from before this node was restored from a backup, at {when}",
            hint="plan the job again: the node cannot know which steps of this plan it took",
            code="restored",
            when=instant_text(restored),
        )
    check_cohort(plan, history.by_digest(plan.roster), roster)
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
    _check_strength(plan, roster.member(node).floor, tier)
    agreement_envelope = find_agreement(mine.agreement)
    issued = Agreement.read(agreement_envelope).issued

    def key_of(member: str) -> PublicKey:
        # It came in under the key of that time, and stays signed when its author exchanges keys; who was removed has none.
        return signing_key(history.rosters, roster.member(member).id, agreement_envelope, issued)

    agreement = open_agreement(agreement_envelope, key_of, now)
    if renewed is not None and agreement.issued <= renewed:
        raise AdmissionError(
            "the agreement is from before this node's ledger was lost, at {when}",
            hint="sign a new one: the node cannot know what was used of it",
            code="agreement-before-ledger",
            when=instant_text(renewed),
        )
    _check_development(plan, agreement, tier)
    if agreement.provider != node or agreement.consumer != plan.requester or agreement.dataset != mine.dataset:
        raise AdmissionError("the agreement is not between these parties about this dataset", code="agreement-mismatch")
    outside = {requester.entity, coordinator.entity}
    members = {planned.node: roster.member(planned.node).entity for planned in plan.cohort}
    entities = frozenset(members.values()) - outside
    return AdmittedPlan(
        envelope,
        plan,
        mine,
        agreement,
        agreement_envelope.digest,
        entities,
        requester.entity,
        members,
        frozenset(outside),
    )


def check_cohort(plan: JobPlan, named: Roster, roster: Roster) -> None:
    """Raise unless all parties of a plan are who they were when it was signed.

    Same keys and entities then and now: a party that was removed or replaced since makes another cohort.
    """
    if roster.version == named.version:
        return
    for party in (plan.requester, plan.coordinator, *(planned.node for planned in plan.cohort)):
        if _identity(named, party) != _identity(roster, party):
            raise AdmissionError(
                "the parties changed since the plan was signed", hint="plan the job again", code="roster-changed"
            )


def _identity(roster: Roster, party: str) -> tuple[str, str] | None:
    try:
        member = roster.member(party)
    except UnknownMemberError:
        return None
    return member.statement_key, member.entity


def memory_here() -> int:
    """Memory of this machine in bytes: a session's bound above it would bind nobody."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_strength(plan: JobPlan, floor: str, tier: str) -> None:
    if max(plan.tier, floor) > tier:
        raise AdmissionError(
            "isolation of tier {wanted} is demanded, and this node gives {here}",
            hint="lower the demand, or run the node where stronger isolation exists (`keyong doctor`)",
            code="tier-unavailable",
            wanted=max(plan.tier, floor),
            here=tier,
        )
    if tier == NO_ISOLATION and plan.tier != NO_ISOLATION:
        raise AdmissionError(
            "this node serves for development, without isolation (T0), and the plan does not accept that",
            hint="have the node serve without --development; or agree on made-up data with --min-tier T0",
            code="tier-unavailable",
        )
    if plan.memory_bytes > memory_here():
        raise AdmissionError(
            "the plan wants {wanted} MiB of memory, and this machine has {here} MiB",
            hint="plan the job with less",
            code="memory-unavailable",
            wanted=plan.memory_bytes // 2**20,
            here=memory_here() // 2**20,
        )
    if plan.aggregation == "each" and plan.protection != "fed:none":
        raise AdmissionError(
            "single replies are shown under fed:protection fed:none alone",
            hint="plan the job with aggregation sum",
            code="each-unprotected",
        )


def _check_development(plan: JobPlan, agreement: Agreement, tier: str) -> None:
    """Raise where a plan or a node is content without isolation, and the agreement does not say so in words."""
    named = demanded_tier(parse_policy(agreement.policy))
    if NO_ISOLATION in (plan.tier, tier) and named != NO_ISOLATION:
        raise AdmissionError(
            "the job would run without isolation (T0), and the agreement demands {wanted}",
            hint="have the node serve without --development; or agree on made-up data with --min-tier T0",
            code="tier-unavailable",
            wanted=named or DEFAULT_TIER,
        )


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
    admitted.agreement.check_time(now)
    check_cohort(plan, history.by_digest(plan.roster), roster)
    if invocation.plan != admitted.digest or invocation.node != node:
        raise AdmissionError("the invocation is for another plan or node", code="invocation-mismatch")
    if invocation.content != content:
        raise AdmissionError("the content is not what the invocation was signed for", code="content-mismatch")
    if invocation.action not in plan.actions:
        raise AdmissionError(
            "the plan does not hold the action {action}", code="action-not-planned", action=invocation.action
        )
    if invocation.round > 2 * plan.rounds + 1:
        raise AdmissionError("the plan ends after {rounds} rounds", code="rounds-exceeded", rounds=plan.rounds)
    return AdmittedStep(admitted, envelope, invocation)
