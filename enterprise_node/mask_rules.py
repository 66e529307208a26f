"""What this node judges of a masked cohort by what it knows itself: accepted companies, its own record, its agreement.

A coordinator's word on who takes part or who is left is believed in nothing that can be checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from enterprise_node.admission import AdmittedPlan
from enterprise_node.record import Record
from enterprise_node.store import RegisteredDataset
from federation.home import Home
from federation.policy import refusal
from federation.secagg import (
    MaskContext,
    MaskGraph,
    MaskingError,
    Opened,
    Public,
    Scope,
    SurvivorsError,
    check_enough_left,
    check_entities,
    check_inputs,
    check_withdrawals,
)
from federation.statements import Envelope, JobPlan, SurvivorSet

if TYPE_CHECKING:
    from enterprise_node.grounds import Grounds

NO_READING: Final[Mapping[str, str]] = {}
"""Of a source whose versions say when it changes."""


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

    def accepted(self, admitted: AdmittedPlan) -> frozenset[str]:
        """The legal entities of a plan's cohort that the owner accepted, and the node's own."""
        return self._grounds.accepted(admitted) | {self._home.identity.entity}

    def check_cohort(self, admitted: AdmittedPlan, dataset: RegisteredDataset, nodes: Collection[str]) -> None:
        """Raise unless the replies of these nodes may be masked together under a plan.

        Raises:
            SurvivorsError: too few distinct accepted companies, without the requester's and the coordinator's.
            DifferenceError: a sum of other companies, or of other data of theirs, was opened on this data.
            PolicyDeniedError: the agreement demands more companies.
        """
        wanted = self._opened(admitted, nodes, "", "")
        check_enough_left(admitted.plan, nodes)
        check_entities(wanted.members, self._grounds.accepted(admitted), admitted.outside, 0)
        if set(nodes) != set(admitted.members):
            self._check_policy(admitted, dataset, nodes)
        self._record.check_difference(admitted.mine.data_version, wanted)

    def check_neighbourhood(self, admitted: AdmittedPlan, graph: MaskGraph, nodes: Collection[str]) -> None:
        """Raise SurvivorsError where too few accepted companies among these nodes have masks in common with this one."""
        around = [node for node in graph.around(self._home.identity.member) if node in nodes]
        members = {node: admitted.members[node] for node in around}
        check_entities(members, self._grounds.accepted(admitted), admitted.outside, 0)

    def check_survivors(
        self,
        admitted: AdmittedPlan,
        dataset: RegisteredDataset,
        survivors: SurvivorSet,
        inputs: Sequence[Envelope],
        withdrawals: Sequence[Envelope],
        context: MaskContext,
        scope: Scope,
        reading: Mapping[str, str] = NO_READING,
    ) -> Opened:
        """The sum that would be opened; raises where this node has no share for it (see ``federation.secagg.survivors``).

        Args:
            reading: what tells a live source's reading from others.
        """
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
        wanted = self._opened(admitted, survivors.survivors, context.stage, context.content, reading)
        check_enough_left(admitted.plan, survivors.survivors)
        check_entities(wanted.members, self._grounds.accepted(admitted), admitted.outside, 0)
        self.check_neighbourhood(admitted, MaskGraph(scope.participants, context.cohort), survivors.survivors)
        if set(survivors.survivors) != set(admitted.members):
            self._check_policy(admitted, dataset, survivors.survivors)
        self._record.check_difference(admitted.mine.data_version, wanted)
        return wanted

    def check_reading(self, admitted: AdmittedPlan, nodes: Collection[str], reading: Mapping[str, str]) -> None:
        """Raise DifferenceError where a live source reads otherwise than when a sum over it was opened under another plan."""
        self._record.check_difference(admitted.mine.data_version, self._opened(admitted, nodes, "", "", reading))

    def _opened(
        self,
        admitted: AdmittedPlan,
        nodes: Collection[str],
        stage: str,
        content: str,
        reading: Mapping[str, str] = NO_READING,
    ) -> Opened:
        if not set(nodes) <= set(admitted.members):
            raise MaskingError("a participant is not in the plan's cohort")
        plan = admitted.plan
        return Opened(
            admitted.digest,
            compared_stage(plan, stage),
            content,
            {node: admitted.members[node] for node in sorted(nodes)},
            {one.node: f"{one.dataset} {one.data_version}" for one in plan.cohort if one.node in nodes},
            plan.encoding.noise is not None,
            (reading,) if reading else (),
        )

    def _check_policy(self, admitted: AdmittedPlan, dataset: RegisteredDataset, nodes: Collection[str]) -> None:
        """Raise where the agreement, judged as if only these took part, does not permit it."""
        left = frozenset(admitted.members[node] for node in nodes) - admitted.outside
        narrowed = replace(admitted, entities=left)
        for action in admitted.plan.actions:
            decision = self._record.rehearse(narrowed, self._grounds.facts(action, dataset, admitted, self._clock()))
            if not decision.permit:
                raise refusal(decision)


def compared_stage(plan: JobPlan, stage: str) -> str:
    """The name under which a stage's contents are compared: where evaluation releases arrays too, it is training under another
    name, and one content may be asked for in both."""
    evaluate = plan.outputs.evaluate
    return "train" if stage == "evaluate" and (evaluate.sent or evaluate.arrays) else stage
