"""The one straight line every invocation takes on this node.

    admission -> decision + INTENT -> materialise -> sandbox -> output gate -> protection -> OUTCOME

Each stage is a module of its own and a function of what the one before handed on; this module only strings them
together and makes sure that an INTENT is followed by an OUTCOME whatever happens in between (invariant 2). Nothing here
is cancelled between the two: a caller that goes away, a revocation and the node's own end all *stop* the job, and its
step then settles as killed. Whatever ends a step other than ``ok`` ends the job here: the app's state is gone, and a
gate that could be asked again and again would be a door.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from enterprise_node._threads import until_done
from enterprise_node.admission import TIER, AdmittedPlan, AdmittedStep, admit_plan, admit_step, check_cohort
from enterprise_node.job import Job, JobEndedError
from enterprise_node.protection import check_available
from enterprise_node.receipts import Done, of_refusal, of_step
from enterprise_node.record import Intent, Record, denied_record
from enterprise_node.recovery import close_open_steps
from enterprise_node.refusals import Refusals
from enterprise_node.stages import Stages
from enterprise_node.store import NodeStore, RegisteredDataset
from federation.errors import DeniedError, KeyongError, UnavailableError
from federation.holdings import Holdings
from federation.home import Home
from federation.jobs.codec import content_digest
from federation.ledger import LedgerError
from federation.policy import refusal
from federation.statements import Column, Envelope, JobPlan, Receipt
from federation.statements.code import CodeBundle
from federation.statements.receipt import Outcome
from federation.wire.messages import Invoked, JobOpened, pack
from federation.wire.peer import Outgoing, place_of
from sandbox import Runtime

log = structlog.get_logger("keyong.node")

OPEN_JOBS = 16
"""Jobs open at once; each may hold a sandbox, a snapshot and its code."""


class NotInForceError(DeniedError):
    """The agreement a plan names is not in force at this node."""

    code = "agreement"


class Line:
    """The line of one node."""

    def __init__(
        self,
        home: Home,
        record: Record,
        store: NodeStore,
        holdings: Holdings,
        runtime: Runtime,
        clock: Callable[[], datetime],
    ) -> None:
        self._home = home
        self._record = record
        self._store = store
        self._holdings = holdings
        self._runtime = runtime
        self._clock = clock
        self._key = home.key("statement")
        self._node = home.identity.member
        self._stages = Stages(home, runtime)
        self._refusals = Refusals(record, time.monotonic)
        self._running: set[str] = set()
        self._unsettled = False
        self.jobs: dict[str, Job] = {}

    # -- opening a job ------------------------------------------------------------------------------------------------

    async def open_job(self, envelope: Envelope, bundle_bytes: memoryview, node_number: int) -> JobOpened:
        """Admit a plan and say whether its first step would be permitted now. Nothing is reserved; a denial is
        recorded.

        A plan that is open already stays as it is, whoever asks again.
        """
        now = self._clock()
        try:
            job = self.jobs.get(envelope.digest)
            if job is None:
                self._check_room()
                job = await asyncio.to_thread(self._consider, envelope, bundle_bytes, node_number, now)
                self._check_room()
                job = self.jobs.setdefault(envelope.digest, job)
            job.check_live()
        except (UnavailableError, LedgerError):
            raise
        except KeyongError as error:
            receipt, _ = await self._refuse(envelope, envelope, envelope.digest, error, now)
            return JobOpened(permitted=False, code=error.code, receipt=pack(receipt) if receipt else "")
        plan = job.admitted.plan
        log.info("job-opened", plan=plan.id, requester=plan.requester, purpose=plan.purpose)
        return JobOpened(permitted=True)

    def _check_room(self) -> None:
        if len(self.jobs) >= OPEN_JOBS:
            raise DeniedError(
                "this node has {count} jobs open, as many as it takes", code="too-many-jobs", count=len(self.jobs)
            )

    def _consider(self, envelope: Envelope, bundle_bytes: memoryview, node_number: int, now: datetime) -> Job:
        admitted = self._admit(envelope, now)
        check_available(admitted.plan)
        dataset = self._dataset(admitted)
        bundle = CodeBundle.from_bytes(bundle_bytes)
        if bundle.digest != admitted.plan.code:
            raise DeniedError("the code is not what the plan was signed for", code="code-mismatch")
        for action in admitted.plan.actions:
            decision = self._record.rehearse(admitted, self._facts(action, dataset, now))
            if not decision.permit:
                raise refusal(decision)
        return Job(admitted, bundle, dataset, node_number)

    def _admit(self, envelope: Envelope, now: datetime) -> AdmittedPlan:
        return admit_plan(
            envelope,
            node=self._node,
            history=self._home.history,
            find_agreement=self._agreement,
            runtime=self._runtime.digest,
            now=now,
        )

    def _agreement(self, digest: str) -> Envelope:
        holding = self._holdings.get(digest)
        if holding is None or holding.state != "in-force":
            raise NotInForceError(
                "the agreement the plan names is {state} here",
                hint="agree anew (`keyong agreement offer`, then sign)",
                state=holding.state if holding else "unknown",
                code="agreement-revoked" if holding and holding.state == "revoked" else "agreement",
            )
        return Envelope.from_bytes(holding.envelope)

    def _facts(self, action: str, dataset: RegisteredDataset, now: datetime) -> dict[str, Any]:
        columns = tuple(Column.model_validate(item).name for item in json.loads(dataset.columns))
        return {"action": action, "now": now, "accepted": self._store.accepted(), "columns": columns, "tier": TIER}

    def _dataset(self, admitted: AdmittedPlan) -> RegisteredDataset:
        dataset = self._store.dataset(admitted.mine.dataset)
        if dataset.data_version != admitted.mine.data_version:
            raise DeniedError("the dataset has another version now", hint="plan the job again", code="data-version")
        return dataset

    async def _refuse(
        self, envelope: Envelope, plan: Envelope | None, plan_digest: str, error: KeyongError, now: datetime
    ) -> tuple[Envelope | None, bytes]:
        """Put a refusal on record; returns its receipt and the proof beside it, both empty where it was only
        counted."""
        log.info("denied", statement=envelope.digest, code=error.code, reason=str(error))
        agreement = plan_agreement(plan, self._node)
        decision = denied_record(error, agreement)
        receipt = None
        if plan is not None and (job_plan := read_plan(plan)) is not None:
            receipt = of_refusal(self._node, job_plan, plan_digest, envelope, error.code, decision, now)
        fields: dict[str, object] = {"statement": envelope.digest, "plan": plan_digest}
        if receipt is None:
            await self._refusals.write(error.code, {**fields, "decision": decision.model_dump(mode="json")})
            return None, b""
        sealed = receipt.seal(self._key)
        appended = await self._refusals.write(error.code, {**fields, "receipt": sealed.to_bytes()})
        if appended is None:
            return None, b""
        return sealed, await asyncio.to_thread(self._record.ledger.receipt_bundle, appended.index)

    # -- one step -----------------------------------------------------------------------------------------------------

    async def invoke(self, plan_digest: str, envelope: Envelope, content_header: bytes, body: memoryview) -> Outgoing:
        """Take one invocation down the line and answer with its receipt, whatever became of it.

        Asked again for the step it answered last, it gives the same answer. A caller that is cancelled stops the job.

        Raises:
            DeniedError: there is no such job, or so many refusals that this one was only counted.
            UnavailableError, LedgerError: nothing could be put on record, so nothing ran, or nothing of it leaves.
        """
        job = self.jobs.get(plan_digest)
        if job is None:
            error = JobEndedError("this node has no such job open", code="no-such-job")
            await self._refuse(envelope, None, plan_digest, error, self._clock())
            raise error
        async with job.lock:
            answered = job.answers.get(envelope.digest)
            if answered is not None:
                return answered
            work = asyncio.create_task(self._take(job, envelope, content_header, body))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                job.stop("cancelled")
                await until_done(work)
                if not work.cancelled():
                    work.exception()
                raise

    async def _take(self, job: Job, envelope: Envelope, content_header: bytes, body: memoryview) -> Outgoing:
        started = self._clock()
        self._running.add(envelope.digest)
        try:
            try:
                step = await asyncio.to_thread(self._admit_step, job, envelope, content_header, body, started)
                facts = await asyncio.to_thread(self._facts, step.invocation.action, job.dataset, started)
                intent = await self._record.intend(step, facts, lambda: self._check_in_force(job), self._runtime.digest)
            except (UnavailableError, LedgerError):
                raise
            except KeyongError as error:
                return await self._deny(job, envelope, error, started)
            answer = await self._run_and_settle(job, step, intent, content_header, body, started)
            job.answers = {envelope.digest: answer}
            return answer
        finally:
            self._running.discard(envelope.digest)
            job.touched = time.monotonic()

    def _admit_step(
        self, job: Job, envelope: Envelope, content_header: bytes, body: memoryview, now: datetime
    ) -> AdmittedStep:
        job.check_live()
        content = content_digest(content_header, [body])
        history = self._home.history
        step = admit_step(job.admitted, envelope, node=self._node, history=history, content=content, now=now)
        self._dataset(job.admitted)
        return step

    def _check_in_force(self, job: Job) -> None:
        """Raise once the job was stopped or its agreement ended; asked in the transactions of INTENT and OUTCOME."""
        if self._holdings.state(job.admitted.agreement_digest) != "in-force":
            self._agreement(job.admitted.agreement_digest)
        job.check_live()

    async def _deny(self, job: Job, envelope: Envelope, error: KeyongError, now: datetime) -> Outgoing:
        receipt, proof = await self._refuse(envelope, job.admitted.envelope, job.admitted.digest, error, now)
        if receipt is None:
            raise error
        return Outgoing(Invoked(receipt=pack(receipt), proof=base64.b64encode(proof).decode()).to_bytes())

    async def _run_and_settle(
        self, job: Job, step: AdmittedStep, intent: Intent, content_header: bytes, body: memoryview, started: datetime
    ) -> Outgoing:
        outcome, code, done = await self._run_until_stopped(job, step, content_header, body)
        try:
            if done is not None:
                try:
                    return await self._settle(job, step, intent, started, outcome, code, done)
                except DeniedError as error:  # stopped or revoked before the OUTCOME was durable: nothing leaves
                    outcome, code = "killed", job.reason or error.code
            job.stop(code)
            return await self._settle(job, step, intent, started, outcome, code, None)
        except (UnavailableError, LedgerError):
            # An INTENT stands open. Nothing leaves; the OUTCOME follows as soon as the ledger takes it (see sweep).
            job.stop("ledger-unavailable")
            self._unsettled = True
            raise
        finally:
            if job.stopped.is_set():
                await self._end_session(job)

    async def _run_until_stopped(
        self, job: Job, step: AdmittedStep, content_header: bytes, body: memoryview
    ) -> tuple[Outcome, str, Done | None]:
        plan = job.admitted.plan.id
        work = asyncio.create_task(self._stages.run(job, step, content_header, body))
        stop = asyncio.create_task(job.stopped.wait())
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if job.stopped.is_set():
            if job.session is not None:
                await job.session.kill()
            work.cancel()
            await until_done(work)
            if not work.cancelled():
                work.exception()
            return "killed", job.reason, None
        try:
            return "ok", "", work.result()
        except DeniedError as error:
            log.info("output-refused", plan=plan, code=error.code, reason=str(error))
            return "denied", error.code, None
        except KeyongError as error:
            log.warning("job-failed", plan=plan, code=error.code, reason=str(error))
            return "failed", error.code, None
        except Exception as error:
            # Its text may hold a row's value; type and place do not.
            log.error("line-failed", plan=plan, error=type(error).__name__, at=place_of(error))
            return "failed", "internal", None

    async def _settle(
        self,
        job: Job,
        step: AdmittedStep,
        intent: Intent,
        started: datetime,
        outcome: Outcome,
        code: str,
        done: Done | None,
    ) -> Outgoing:
        """Write OUTCOME, then and only then hand on what leaves."""
        receipt: Receipt = of_step(
            step,
            intent.index,
            intent.decision,
            job.held(),
            outcome=outcome,
            code=code,
            done=done,
            runtime=self._runtime.digest,
            started=started,
            ended=self._clock(),
        )
        envelope = receipt.seal(self._key)
        if done is None:
            appended = await self._record.settle(receipt, envelope)
        else:
            appended = await self._record.settle(receipt, envelope, lambda: self._check_in_force(job))
        proof = await asyncio.to_thread(self._record.ledger.receipt_bundle, appended.index)
        header = Invoked(
            receipt=pack(envelope), proof=base64.b64encode(proof).decode(), reply=done.header if done else ""
        )
        return Outgoing(header.to_bytes(), done.buffers if done else ())

    # -- ending -------------------------------------------------------------------------------------------------------

    async def close_job(self, plan_digest: str, reason: str = "closed") -> None:
        """End a job: a running step killed at once, snapshot removed, the app's output kept for the owner."""
        job = self.jobs.pop(plan_digest, None)
        if job is None:
            return
        job.stop(reason)
        async with job.lock:
            await self._end_session(job)

    async def _end_session(self, job: Job) -> None:
        session, job.session = job.session, None
        if session is not None:
            await session.close()

    async def revoke(self, agreement_digest: str) -> None:
        """End every job that rests on an agreement, at once."""
        await self._close_all(
            {
                digest: "agreement-revoked"
                for digest, job in self.jobs.items()
                if job.admitted.agreement_digest == agreement_digest
            }
        )

    async def sweep(self) -> None:
        """End jobs that lost their ground: agreement ended, plan expired, parties changed, long idle. Settle what is
        open."""
        now = self._clock()
        jobs = dict(self.jobs)
        reasons = await asyncio.to_thread(lambda: {digest: self._lost(job, now) for digest, job in jobs.items()})
        await self._close_all({digest: reason for digest, reason in reasons.items() if reason})
        if self._unsettled:
            await close_open_steps(self._record, self._key, self._node, now, frozenset(self._running))
            self._unsettled = False

    def _lost(self, job: Job, now: datetime) -> str:
        try:
            self._agreement(job.admitted.agreement_digest)
            job.admitted.plan.check_time(now)
            job.admitted.agreement.check_time(now)
            history = self._home.history
            check_cohort(job.admitted.plan, history.by_digest(job.admitted.plan.roster), history.latest)
        except UnavailableError:
            return ""
        except KeyongError as error:
            return error.code
        return "idle" if job.idle() else ""

    async def close(self) -> None:
        """End all jobs; steps that run settle as killed."""
        await self._close_all(dict.fromkeys(self.jobs, "node-stopped"))
        await self._refusals.flush()

    async def _close_all(self, reasons: dict[str, str]) -> None:
        await asyncio.gather(*(self.close_job(digest, reason) for digest, reason in reasons.items()))


def read_plan(envelope: Envelope) -> JobPlan | None:
    """The plan in an envelope; None where it holds none."""
    try:
        return JobPlan.read(envelope)
    except KeyongError:
        return None


def plan_agreement(envelope: Envelope | None, node: str) -> str:
    """Digest of the agreement that a plan names for this node; empty where it names none."""
    plan = read_plan(envelope) if envelope is not None else None
    return next((planned.agreement for planned in plan.cohort if planned.node == node), "") if plan else ""
