"""Several parties' histories held against one another: what one of them left out, another one has on record.

Pure: facts in, findings out. A party's silence counts only where its export shows every entry that could speak; entries whose
fields were erased or withheld make it *not judged*, never a finding. The rules, by the finding's code:

request-missing     a node or the coordinator worked on a plan that the requester has no record of
job-missing         nodes worked, by steps that a coordinator signed, on a job that the coordinator has no record of
outcome-missing     a node began a step and has no OUTCOME, though the job ended and its result was given out
receipt-missing     the requester holds a receipt, signed by the node, that the node's history does not have
receipt-moved       the node's history has it at another entry than its proof said
cut-short           another party holds a checkpoint of a ledger that is longer than its export (judged by the checkpoints)
receipts-differ     coordinator and requester, or coordinator and node, count a node's receipts differently
step-repeated       one signed step was begun twice at a node
acknowledgement-missing   the coordinator gave the result out, and the requester's record neither takes nor refuses it
acknowledgement-omitted   another party holds an acknowledgement, signed by the requester, that the requester's record lacks
acknowledgement-false     an acknowledgement says something else of a node's receipts than the requester's own record
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from federation.statements import receipts_digest
from keyong.facts import Facts, Job

EVENTS_THAT_END = frozenset({"done", "failed", "denied", "cancelled"})
RECEIVED = frozenset({"fed:train", "fed:evaluate"})
"""Actions whose results are acknowledged."""


@dataclass(frozen=True)
class Place:
    """An entry of a party's ledger."""

    member: str
    entry: int


@dataclass(frozen=True)
class Discrepancy:
    """Something that does not add up between histories.

    Attributes:
        code: see the module's text.
        parties: against whom it speaks; two where either may be at fault.
        evidence: the entries that show it.
        node: whose receipts it is about; empty where about none.
        detail: the digest of the statement that is missing, or empty.
    """

    code: str
    plan: str
    parties: tuple[str, ...]
    evidence: tuple[Place, ...]
    node: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Reconciliation:
    """What came of holding histories against one another.

    Attributes:
        plans: jobs that were looked at.
        unjudged: what was left open, because a party's entries are sealed: its member and the kind of entry.
    """

    plans: int
    findings: tuple[Discrepancy, ...]
    unjudged: tuple[tuple[str, str], ...]


@dataclass
class _Reconciler:
    facts: Mapping[str, Facts]
    coordinators: frozenset[str]
    findings: list[Discrepancy] = field(default_factory=list)
    unjudged: dict[tuple[str, str], None] = field(default_factory=dict)

    def run(self) -> Reconciliation:
        plans = sorted({plan for facts in self.facts.values() for plan in facts.jobs})
        for plan in plans:
            self._plan(plan, {member: facts.jobs[plan] for member, facts in self.facts.items() if plan in facts.jobs})
        return Reconciliation(len(plans), tuple(self.findings), tuple(sorted(self.unjudged)))

    def _plan(self, plan: str, jobs: Mapping[str, Job]) -> None:
        requester = _requester(jobs)
        coordinator = next((one for one in sorted(self.coordinators) if one in self.facts), "")
        nodes = {member: job for member, job in jobs.items() if job.steps or job.given}
        self._request(plan, jobs, requester, nodes)
        self._job(plan, jobs, coordinator, nodes)
        asked = jobs.get(requester, Job())
        held = jobs.get(coordinator, Job())
        for node in sorted({*nodes, *asked.holds, *held.counted}):
            if node in self.facts:
                self._node(plan, node, jobs.get(node, Job()), (requester, asked), (coordinator, held))
        self._counts(plan, (requester, asked), (coordinator, held))
        self._acknowledgements(plan, jobs, (requester, asked), (coordinator, held))

    def _request(self, plan: str, jobs: Mapping[str, Job], requester: str, nodes: Mapping[str, Job]) -> None:
        if requester not in self.facts or jobs.get(requester, Job()).asked is not None:
            return
        begun = [Place(node, step.entry) for node, job in nodes.items() for step in job.steps]
        taken = [Place(member, job.submitted) for member, job in jobs.items() if job.submitted is not None]
        if begun or taken:
            self._unless_sealed(requester, "plan", Discrepancy("request-missing", plan, (requester,), (*taken, *begun)))

    def _job(self, plan: str, jobs: Mapping[str, Job], coordinator: str, nodes: Mapping[str, Job]) -> None:
        if not coordinator or jobs.get(coordinator, Job()).submitted is not None:
            return
        begun = tuple(Place(node, step.entry) for node, job in nodes.items() for step in job.steps)
        if begun:
            self._unless_sealed(coordinator, "job", Discrepancy("job-missing", plan, (coordinator,), begun))

    def _node(self, plan: str, node: str, job: Job, asked: tuple[str, Job], held: tuple[str, Job]) -> None:
        seen: dict[str, int] = {}
        for step in job.steps:
            if step.invocation and step.invocation in seen:
                twice = (Place(node, seen[step.invocation]), Place(node, step.entry))
                self.findings.append(Discrepancy("step-repeated", plan, (node,), twice, node, step.invocation))
            seen[step.invocation] = step.entry
        self._outcomes(plan, node, job, asked, held)
        requester, requested = asked
        for digest, holds in requested.holds.get(node, {}).items():
            given = job.given.get(digest)
            at = Place(requester, holds.at)
            if given is None and holds.entry >= self.facts[node].size:
                continue  # the export ends before: it is cut short, or older
            if given is None:
                missing = Discrepancy("receipt-missing", plan, (node,), (at, Place(node, holds.entry)), node, digest)
                self._unless_sealed(node, "outcome", missing, "denied")
            elif holds.entry >= 0 and given.entry != holds.entry:
                moved = (at, Place(node, given.entry))
                self.findings.append(Discrepancy("receipt-moved", plan, (node,), moved, node, digest))
        coordinator, carried = held
        if node in carried.counted and carried.ended is not None:
            count, digest = carried.counted[node]
            here = [one.digest for one in job.given.values()]
            # A node may have more: what it answered while the coordinator was away was never carried.
            if count > len(here) or (count == len(here) and receipts_digest(here) != digest):
                places = (Place(coordinator, carried.ended), *(Place(node, one.entry) for one in job.given.values()))
                differ = Discrepancy("receipts-differ", plan, (node, coordinator), places, node, digest)
                self._unless_sealed(node, "outcome", differ, "denied")

    def _outcomes(self, plan: str, node: str, job: Job, asked: tuple[str, Job], held: tuple[str, Job]) -> None:
        """INTENTs without an OUTCOME at the node, of a job that is over for someone else."""
        closed = self.facts[node].closed
        over = [
            Place(member, entry)
            for member, entry in (
                (held[0], held[1].ended if held[1].end in EVENTS_THAT_END else None),
                (asked[0], asked[1].result),
            )
            if entry is not None
        ]
        for step in job.steps:
            if step.entry not in closed and over:
                places = (Place(node, step.entry), *over)
                self.findings.append(Discrepancy("outcome-missing", plan, (node,), places, node, step.invocation))

    def _counts(self, plan: str, asked: tuple[str, Job], held: tuple[str, Job]) -> None:
        """What the requester was given against what the coordinator had."""
        (requester, requested), (coordinator, carried) = asked, held
        if not requested.holds or carried.ended is None or not carried.counted:
            return
        for node in sorted({*requested.holds, *carried.counted}):
            mine = receipts_digest(requested.holds.get(node, {}))
            _, digest = carried.counted.get(node, (0, ""))
            if mine != digest:
                places = (Place(coordinator, carried.ended), *_places(requester, requested, node))
                parties = (coordinator, requester)
                differ = Discrepancy("receipts-differ", plan, parties, places, node, digest)
                self._unless_sealed(requester, "receipts", differ)

    def _acknowledgements(
        self, plan: str, jobs: Mapping[str, Job], asked: tuple[str, Job], held: tuple[str, Job]
    ) -> None:
        (requester, requested), (coordinator, carried) = asked, held
        if requester not in self.facts:
            return
        own = {told.digest for told in requested.acks}
        for member, job in jobs.items():
            for told in job.acks:
                if member != requester and told.digest not in own:
                    held_at = (Place(member, told.entry),)
                    omitted = Discrepancy("acknowledgement-omitted", plan, (requester,), held_at, "", told.digest)
                    self._unless_sealed(requester, "ack", omitted)
        if carried.delivered and not requested.acks and requested.not_taken is None and not _answered(requested):
            given_out = tuple(Place(coordinator, entry) for entry in carried.delivered)
            missing = Discrepancy("acknowledgement-missing", plan, (requester,), given_out)
            self._unless_sealed(requester, "ack", missing, "not-taken")
        for told in requested.acks:
            for one in told.said.nodes:
                mine = requested.holds.get(one.node, {})
                if receipts_digest(mine) != one.digest:
                    places = (Place(requester, told.entry), *_places(requester, requested, one.node))
                    false = Discrepancy("acknowledgement-false", plan, (requester,), places, one.node, told.digest)
                    self._unless_sealed(requester, "receipts", false)

    def _unless_sealed(self, member: str, kind: str, finding: Discrepancy, *kinds: str) -> None:
        """Report a party's silence, or that it cannot be judged: an entry that is sealed may be the one."""
        sealed = [one for one in (kind, *kinds) if self.facts[member].sealed[one]]
        for one in sealed:
            self.unjudged[member, one] = None
        if not sealed:
            self.findings.append(finding)


def reconcile(facts: Sequence[Facts], coordinators: frozenset[str]) -> Reconciliation:
    """Hold the histories of several parties against one another; one history a party."""
    return _Reconciler({one.member: one for one in facts}, coordinators).run()


def _answered(requested: Job) -> bool:
    """Whether it records how a plan ended whose answer is not acknowledged: a query, a score, an intersection."""
    return requested.result is not None and requested.plan is not None and not RECEIVED & set(requested.plan.actions)


def _requester(jobs: Mapping[str, Job]) -> str:
    """Whose plan it is, as the plan itself says it, a coordinator's entry, a node's, or an acknowledgement."""
    return next(_claims(jobs), "")


def _claims(jobs: Mapping[str, Job]) -> Iterator[str]:
    for member, job in jobs.items():
        if job.plan is not None:
            yield job.plan.requester
        elif job.asked is not None:
            yield member
    for job in jobs.values():
        if job.requester:
            yield job.requester
        yield from (step.requester for step in job.steps if step.requester)
        yield from (told.said.requester for told in job.acks)


def _places(requester: str, job: Job, node: str) -> tuple[Place, ...]:
    return tuple(Place(requester, at) for at in sorted({one.at for one in job.holds.get(node, {}).values()}))
