"""What this node judges of a masked cohort by what it knows itself: accepted companies, its own record, its agreement.

A coordinator's word on who takes part or who is left is believed in nothing that can be checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from enterprise_node.admission import AdmittedPlan
from enterprise_node.record import Record
from enterprise_node.store import RegisteredDataset
from federation.home import Home
from federation.policy import refusal
from federation.secagg import (
    MaskContext,
    MaskingError,
    Opened,
    Public,
    Scope,
    SurvivorsError,
    check_entities,
    check_inputs,
    check_withdrawals,
)
from federation.statements import Envelope, SurvivorSet

if TYPE_CHECKING:
    from enterprise_node.grounds import Grounds


class MaskRules:
    """Judges cohorts and survivors; reads, writes nothing."""

    def __init__(self, home: Home, grounds: Grounds, record: Record, clock: Callable[[], datetime]) -> None:
        self._home = home
        self._grounds = grounds
        self._record = record
        self._clock = clock

    @property
    def public(self) -> Public:
        """The statement key of a member of the roster in force."""
        roster = self._home.history.in_force(self._clock())
        return lambda member: roster.member(member).public

    @property
    def accepted(self) -> frozenset[str]:
        """The legal entities that the owner accepted, and the node's own."""
        return self._grounds.accepted | {self._home.identity.entity}

    def check_cohort(self, admitted: AdmittedPlan, dataset: RegisteredDataset, nodes: Collection[str]) -> None:
        """Raise unless the replies of these nodes may be masked together under a plan.

        Raises:
            SurvivorsError: too few distinct accepted companies, without the requester's and the coordinator's.
            DifferenceError: a sum of other companies was opened on this data, and would differ from theirs by one or two.
            PolicyDeniedError: the agreement demands more companies.
        """
        wanted = self._opened(admitted, nodes, "", "")
        check_entities(wanted.members, self._grounds.accepted, admitted.outside, 0)
        if set(nodes) != set(admitted.members):
            self._check_policy(admitted, dataset, nodes)
        self._record.check_difference(admitted.mine.data_version, wanted)

    def check_survivors(
        self,
        admitted: AdmittedPlan,
        dataset: RegisteredDataset,
        survivors: SurvivorSet,
        inputs: Sequence[Envelope],
        withdrawals: Sequence[Envelope],
        context: MaskContext,
        scope: Scope,
    ) -> Opened:
        """The sum that would be opened; raises where this node has no share for it (see ``federation.secagg.survivors``)."""
        now, public = self._clock(), self.public
        check_inputs(survivors, inputs, context, scope, public, now)
        check_withdrawals(withdrawals, context, scope, public, now)
        if len(survivors.survivors) < admitted.plan.minimal_participants:
            raise SurvivorsError(
                "{count} nodes are left, the plan needs {least}",
                code="too-few-participants",
                count=len(survivors.survivors),
                least=admitted.plan.minimal_participants,
            )
        wanted = self._opened(admitted, survivors.survivors, context.stage, context.content)
        check_entities(wanted.members, self._grounds.accepted, admitted.outside, 0)
        if set(survivors.survivors) != set(admitted.members):
            self._check_policy(admitted, dataset, survivors.survivors)
        self._record.check_difference(admitted.mine.data_version, wanted)
        return wanted

    def _opened(self, admitted: AdmittedPlan, nodes: Collection[str], stage: str, content: str) -> Opened:
        if not set(nodes) <= set(admitted.members):
            raise MaskingError("a participant is not in the plan's cohort")
        return Opened(admitted.digest, stage, content, {node: admitted.members[node] for node in sorted(nodes)})

    def _check_policy(self, admitted: AdmittedPlan, dataset: RegisteredDataset, nodes: Collection[str]) -> None:
        """Raise where the agreement, judged as if only these took part, does not permit it."""
        left = frozenset(admitted.members[node] for node in nodes) - admitted.outside
        narrowed = replace(admitted, entities=left)
        for action in admitted.plan.actions:
            decision = self._record.rehearse(narrowed, self._grounds.facts(action, dataset, self._clock()))
            if not decision.permit:
                raise refusal(decision)
