"""What a job rests on at this node, looked at when it is opened and again while it lives: statements, agreement, data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from enterprise_node.acceptance import Acceptances
from enterprise_node.admission import NO_ISOLATION, AdmittedPlan, admit_plan, check_cohort
from enterprise_node.approvals import Approvals
from enterprise_node.bilateral_rules import check_bilateral
from enterprise_node.group_size import planned_group
from enterprise_node.job import Job
from enterprise_node.protection import check_available
from enterprise_node.query_rules import check_plan, described
from enterprise_node.record import Record
from enterprise_node.rules import read_rules
from enterprise_node.store import NodeStore, RegisteredDataset
from federation.errors import DeniedError, KeyongError, UnavailableError
from federation.holdings import Holdings
from federation.home import Home
from federation.peer_times import PeerTimes
from federation.policy import refusal
from federation.secagg import check_weights
from federation.statements import Envelope
from federation.statements.code import CodeBundle
from sandbox import Tier


class NotInForceError(DeniedError):
    """The agreement a plan names is not in force at this node."""

    code = "agreement"


class Grounds:
    """Reads what a job rests on, never from memory: an owner's command changes it in another process.

    Args:
        runtime: digest of what this node runs jobs on.
        clock: the time of day.
    """

    def __init__(
        self,
        home: Home,
        record: Record,
        store: NodeStore,
        holdings: Holdings,
        runtime: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._home = home
        self._record = record
        self._store = store
        self._holdings = holdings
        self._runtime = runtime
        self._clock = clock
        self._acceptances = Acceptances(home, store)
        self._approvals = Approvals(home, record.ledger)
        self.times = PeerTimes(clock)
        """What others say of the time: where most of them contradict this machine's clock, nothing is judged."""
        self.tier = Tier.T2
        """What this node's sessions are isolated by, as its canary found at the start."""

    def consider(self, envelope: Envelope, bundle_bytes: memoryview, now: datetime) -> Job:
        """Admit a plan and rehearse the decision on each of its actions; the job it would be."""
        admitted = admit_plan(
            envelope,
            node=self._home.identity.member,
            history=self._home.history,
            find_agreement=self.agreement,
            runtime=self._runtime,
            tier=str(self.tier),
            now=now,
            restored=self._home.restored_at,
            renewed=self._home.renewed_at,
        )
        check_available(admitted.plan)
        dataset = self.dataset(admitted)
        bundle = CodeBundle.from_bytes(bundle_bytes)
        if bundle.digest != admitted.plan.code:
            raise DeniedError("the code is not what the plan was signed for", code="code-mismatch")
        check_plan(admitted, dataset, bundle)
        check_bilateral(admitted, dataset, bundle)
        for action in admitted.plan.actions:
            decision = self._record.rehearse(admitted, self.facts(action, dataset, admitted, now))
            if not decision.permit:
                if decision.rule == "approval":
                    self._approvals.ask(admitted, bundle)
                raise refusal(decision)
        if admitted.plan.query is None:
            published = described(dataset)
            check_weights(admitted.plan.encoding, published.rows_at_least, published.rows_at_most)
        return Job(admitted, bundle, dataset)

    def agreement(self, digest: str) -> Envelope:
        """The agreement of that digest; raises NotInForceError where it is not in force."""
        holding = self._holdings.get(digest)
        if holding is not None and holding.state == "suspended":
            raise NotInForceError(
                "the agreement the plan names is suspended here",
                hint="wait until whoever suspended it resumes it (`keyong agreement resume`)",
                code=SUSPENDED,
            )
        if holding is None or holding.state != "in-force":
            raise NotInForceError(
                "the agreement the plan names is {state} here",
                hint="agree anew (`keyong agreement offer`, then sign)",
                state=holding.state if holding else "unknown",
                code="agreement-revoked" if holding and holding.state == "revoked" else "agreement",
            )
        return Envelope.from_bytes(holding.envelope)

    def ended(self, digest: str) -> bool:
        """Whether an agreement is over here; False where it is interrupted alone, or the store cannot say."""
        return self.fallen(digest) == "agreement-revoked"

    def fallen(self, digest: str) -> str:
        """Why an agreement carries no job here now; empty where it does, or the store cannot say."""
        try:
            state = self._holdings.state(digest)
        except UnavailableError:
            return ""
        return "" if state == "in-force" else SUSPENDED if state == "suspended" else "agreement-revoked"

    def facts(self, action: str, dataset: RegisteredDataset, admitted: AdmittedPlan, now: datetime) -> dict[str, Any]:
        """What this node found out itself and a decision is judged by; see :func:`enterprise_node.decision.judge`.

        Raises:
            ClockError: this machine's clock is not to be believed; nothing is decided.
        """
        self.times.check()
        return {
            "action": action,
            "now": now,
            "accepted": self.accepted(admitted),
            "columns": dataset.shown_names,
            "rules": read_rules(dataset.rules).digest,
            "tier": str(self.tier),
            "group": planned_group(admitted.plan, dataset) if admitted.demands(action).group_bounded else None,
            "private": dataset.privacy_unit is not None,
        }

    def accepted(self, admitted: AdmittedPlan) -> frozenset[str]:
        """The legal entities of a plan's cohort that the owner accepted, with each of their nodes in it."""
        return self._acceptances.entities(admitted.members)

    def dataset(self, admitted: AdmittedPlan) -> RegisteredDataset:
        """The dataset of a plan, in the version that the plan names."""
        dataset = self._store.dataset(admitted.mine.dataset)
        if dataset.data_version != admitted.mine.data_version:
            raise DeniedError("the dataset has another version now", hint="plan the job again", code="data-version")
        if NO_ISOLATION in (admitted.plan.tier, str(self.tier)) and not dataset.simulated:
            raise DeniedError(
                "without isolation (T0) jobs run on made-up data alone, and {dataset} is not marked as such",
                hint="plan the job at T2; or, if its records are made up, register it anew with --simulated",
                code="not-made-up",
                dataset=dataset.id,
            )
        return dataset

    def check_in_force(self, job: Job) -> None:
        """Raise once the job was stopped or its agreement ended."""
        if self._holdings.state(job.admitted.agreement_digest) != "in-force":
            self.agreement(job.admitted.agreement_digest)
        job.check_live()

    def lost(self, job: Job) -> str:
        """Why a job has no ground any more: agreement ended, plan expired, parties changed, long idle; or empty."""
        now = self._clock()
        try:
            self.agreement(job.admitted.agreement_digest)
            job.admitted.plan.check_time(now)
            job.admitted.agreement.check_time(now)
            history = self._home.history
            check_cohort(job.admitted.plan, history.by_digest(job.admitted.plan.roster), history.latest)
        except UnavailableError:
            return ""
        except KeyongError as error:
            return error.code
        return IDLE if job.idle() else ""


IDLE = "idle"
SUSPENDED = "agreement-suspended"
