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
import functools
import math
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import structlog

from enterprise_node._threads import until_done
from enterprise_node.admission import AdmittedStep, admit_step
from enterprise_node.answers import SMALL_BYTES, KeptReplies, KeptReply, KeptReplyError, RestsOn
from enterprise_node.denial import Denials
from enterprise_node.grounds import IDLE, SUSPENDED, Grounds
from enterprise_node.held import HeldRow
from enterprise_node.job import Job, JobEndedError
from enterprise_node.laps import Laps
from enterprise_node.mask_rules import MaskRules
from enterprise_node.masked_round import JobMasks
from enterprise_node.metrics import NodeMetrics
from enterprise_node.opener import Opener
from enterprise_node.outcomes import INTERNAL, NOT_RELEASED, visible
from enterprise_node.query_session import QuerySession
from enterprise_node.receipts import Done, Held, of_step
from enterprise_node.record import Intent, Record
from enterprise_node.recovery import close_open_steps, close_step
from enterprise_node.release import Release, StillHeldError
from enterprise_node.release_slot import ReleaseSlot
from enterprise_node.stages import Stages, bits_of, cost_of, most_bytes_of
from enterprise_node.step_log import StepLog
from enterprise_node.step_meter import METERED_TIME, StepMeter
from enterprise_node.store import NodeStore
from federation.errors import DeniedError, KeyongError, UnavailableError
from federation.holdings import Holdings
from federation.home import Home
from federation.jobs.codec import Content, ContentError, content_digest, decode
from federation.ledger import LedgerError, Refusals
from federation.secagg import Opened
from federation.statements import Envelope, Receipt
from federation.statements.receipt import Outcome
from federation.wire.body import total_bytes
from federation.wire.messages import Invoked, JobOpened, pack
from federation.wire.peer import Outgoing, place_of
from sandbox import Runtime, Tier

log = structlog.get_logger("keyong.node")

TIDY_SECONDS = 3600.0
"""How often logs whose time is over are looked for."""
OPEN_JOBS = 16
"""Jobs open at once; each may hold a sandbox, a snapshot and its code."""


Ran = tuple[Outcome, str, Done | None]
"""What running a step came to: outcome, the code that others are told, and what may leave."""
STOPPED, CLOSED, MASKS_LOST = "node-stopped", "closed", "mask-keys"
_KEEPS_ANSWER = (STOPPED, IDLE, SUSPENDED)
"""A job that ends so may be opened again, and its last answer asked for."""


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
        metrics: NodeMetrics | None = None,
        waiting: int = 0,
    ) -> None:
        self._home = home
        self._record = record
        self._runtime = runtime
        self._clock = clock
        self._key = home.key("statement")
        self._node = home.identity.member
        self._grounds = Grounds(home, record, store, holdings, runtime.digest, clock)
        self._mask_rules = MaskRules(home, self._grounds, record, clock)
        told = lambda withdrawal: self.on_withdrawal(withdrawal)  # noqa: E731
        self._opener = Opener(record, self._settle, self._check_in_force, clock, told)
        self._stages = Stages(home, runtime, waiting)
        self._refusals = Refusals(record.ledger, time.monotonic)
        self._metrics = metrics or NodeMetrics()
        self._denials = Denials(self._refusals, record, self._node, self._key, self._metrics.denied)
        self._kept = KeptReplies(home.folder("answers"))
        self._release = Release(home, record, clock)
        self._steps = StepLog(home)
        self._tidied = time.monotonic()
        self._running: set[str] = set()
        self._unsettled = False
        self._draining = False
        self.jobs: dict[str, Job] = {}
        self.on_withdrawal: Callable[[Envelope], None] = lambda _: None
        """Hears this node's word that it takes a masked vector back, to be told to the others."""

    def isolate_at(self, tier: Tier) -> None:
        """Demand this tier of every session from now on; what the canary proved, before the first job is opened."""
        self._grounds.tier = self._stages.tier = tier

    @property
    def waiting(self) -> int:
        """Workers that are started and wait for a job."""
        return len(self._stages.workers)

    async def fill(self) -> None:
        """Start the workers in waiting that are wanted; not beside a step, which it would slow down."""
        if not (self._running or self._draining):
            await self._stages.workers.fill(self._stages.tier)

    # -- opening a job ------------------------------------------------------------------------------------------------

    async def open_job(self, envelope: Envelope, bundle_bytes: memoryview) -> JobOpened:
        """Admit a plan and say whether its first step would be permitted now. Nothing is reserved; a denial is
        recorded.

        A plan that is open already stays as it is, whoever asks again. One whose session was stopped is opened anew;
        what it may still do is asked of the ledger, step by step, and its last answer is given again from there.
        """
        now = self._clock()
        try:
            job = self.jobs.get(envelope.digest)
            if job is not None and job.stopped.is_set():
                await self.close_job(envelope.digest, STOPPED)
                job = None
            if job is None:
                if self._draining:
                    raise UnavailableError("this node is stopping", code="stopping")
                self._check_room()
                job = await asyncio.to_thread(self._consider, envelope, bundle_bytes, now)
                job.answers = await asyncio.to_thread(self._answered, envelope.digest)
                self._check_room()
                job = self.jobs.setdefault(envelope.digest, job)
            job.check_live()
        except (UnavailableError, LedgerError):
            raise
        except KeyongError as error:
            receipt, _ = await self._denials.write(envelope, envelope, envelope.digest, error, now)
            return JobOpened(permitted=False, code=error.code, receipt=pack(receipt) if receipt else "")
        plan = job.admitted.plan
        log.info("job-opened", plan=plan.id, requester=plan.requester, purpose=plan.purpose)
        return JobOpened(permitted=True)

    def _consider(self, envelope: Envelope, bundle_bytes: memoryview, now: datetime) -> Job:
        job = self._grounds.consider(envelope, bundle_bytes, now)
        admitted = job.admitted
        if admitted.plan.protection != "fed:none":
            self._mask_rules.check_cohort(admitted, job.dataset, admitted.members)
            job.masks = JobMasks(self._node, admitted, job.dataset, self._key, self._mask_rules, self._clock)
        return job

    def _check_room(self) -> None:
        if len(self.jobs) >= OPEN_JOBS:
            raise DeniedError(
                "this node has {count} jobs open, as many as it takes", code="too-many-jobs", count=len(self.jobs)
            )

    def _answered(self, plan: str) -> dict[str, Outgoing]:
        """The answer to the newest step of a plan, from the ledger and, where something left, the kept reply."""
        last = self._record.last_step(plan)
        if last is None:
            return {}
        envelope = Envelope.from_bytes(self._record.ledger.fields(last.entry)["receipt"])
        reply = KeptReply("", ())
        if last.outcome == "ok" and Receipt.read(envelope).protection != "fed:none":
            return {}  # a masked vector is of no use without the shares, which were never written down
        if last.outcome == "ok":
            found = self._kept.find(plan, last.invocation)
            try:
                if found is None:
                    return {}
                found.check(Receipt.read(envelope).output)
            except KeptReplyError as error:
                log.warning("kept-reply-refused", plan=plan, code=error.code)
                return {}
            reply = found
        proof = base64.b64encode(self._record.ledger.receipt_bundle(last.entry)).decode()
        header = Invoked(receipt=pack(envelope), proof=proof, reply=reply.header)
        return {last.invocation: Outgoing(header.to_bytes(), reply.body)}

    # -- one step -----------------------------------------------------------------------------------------------------

    async def invoke(
        self,
        plan_digest: str,
        envelope: Envelope,
        content_header: bytes,
        body: memoryview,
        lost: Callable[[], bool] = lambda: False,
        content: str = "",
    ) -> Outgoing:
        """Take one invocation down the line and answer with its receipt, whatever became of it.

        Asked again for the step it answered last, or is at, it gives the same answer. A caller that is cancelled stops
        the job, but not where its link was lost: the step goes on, and its answer waits to be asked for.

        Args:
            lost: whether the link that the caller asked over has ended.
            content: digest of header and body, where it is known already.

        Raises:
            DeniedError: there is no such job, or so many refusals that this one was only counted.
            UnavailableError, LedgerError: nothing could be put on record, so nothing ran, or nothing of it leaves.
        """
        job = self.jobs.get(plan_digest)
        if job is None:
            error = JobEndedError("this node has no such job open", code="no-such-job")
            await self._denials.write(envelope, None, plan_digest, error, self._clock())
            raise error
        answered = job.answers.get(envelope.digest)
        if answered is not None:
            return answered
        work = job.work.get(envelope.digest)
        if work is None:
            if self._draining:
                raise UnavailableError("this node is stopping", code="stopping")
            work = asyncio.create_task(self._take(job, envelope, content_header, body, content))
            job.began(envelope.digest, work)
        try:
            return await job.answer(envelope.digest)
        except asyncio.CancelledError:
            if not lost():
                job.strike("cancelled")
                await until_done(work)
            raise

    async def _take(
        self, job: Job, envelope: Envelope, content_header: bytes, body: memoryview, content: str
    ) -> Outgoing:
        async with job.lock:
            started, job.laps = self._clock(), Laps()
            self._running.add(envelope.digest)
            try:
                try:
                    if not content:
                        content = await asyncio.to_thread(content_digest, content_header, [body])
                    admit = functools.partial(self._admit_step, job, envelope, content_header, body, content, started)
                    step, sent, row, facts = await asyncio.to_thread(admit)
                    if job.masks is not None:
                        job.masks.begin(step.invocation)
                    job.laps.lap("admission")
                    if row is None:
                        bits = bits_of(step.admitted.plan, step.invocation.stage, sent)
                        facts |= most_of(step, sent)
                        guard = functools.partial(self._check_in_force, job)
                        cost = cost_of(step.admitted.plan, step.invocation.stage, sent)
                        intent = await self._record.intend(step, facts, guard, self._runtime.digest, bits, cost)
                except (UnavailableError, LedgerError):
                    # Not acknowledged is not the same as not written: an INTENT that stands all the same is settled.
                    self._unsettled = True
                    raise
                except KeyongError as error:
                    return await self._deny(job, envelope, error, started)
                if row is not None:
                    return await self._go_on(job, step, row)
                job.laps.lap("intent")
                job.meter = meter_of(intent, step.admitted.plan.slot_seconds)
                job.round, job.stage = step.invocation.round, step.invocation.stage
                job.answers, job.reply = {}, None  # whoever asks for a step has the answer to the one before
                slot = ReleaseSlot(step.admitted.plan.slot_seconds)
                run = self._run_until_stopped(job, step, content_header, body, sent)
                answer = await self._conclude(job, step, intent, started, slot, run)
                job.answers = {envelope.digest: answer}
                return answer
            finally:
                if job.masks is not None:
                    job.masks.over()
                self._running.discard(envelope.digest)
                job.touched = time.monotonic()

    def _admit_step(
        self, job: Job, envelope: Envelope, header: bytes, body: memoryview, content: str, now: datetime
    ) -> tuple[AdmittedStep, Content | None, HeldRow | None, dict[str, Any]]:
        """The step, its content where it can be read, its output where that waits for the owner since before, and what
        this node found out itself for the decision."""
        job.check_live()
        history = self._home.history
        step = admit_step(job.admitted, envelope, node=self._node, history=history, content=content, now=now)
        self._grounds.dataset(job.admitted)
        action = step.invocation.action
        reviewed = job.admitted.demands(action).review
        row = self._release.outputs.row(envelope.digest) if reviewed else None
        facts = self._grounds.facts(action, job.dataset, now)
        try:
            return step, decode(header, body), row, facts
        except ContentError:
            return step, None, row, facts  # fails where it is run

    def _check_in_force(self, job: Job) -> None:
        """Raise once the job was stopped or its agreement ended; asked in the transactions of INTENT and OUTCOME."""
        self._grounds.check_in_force(job)

    async def _deny(self, job: Job, envelope: Envelope, error: KeyongError, now: datetime) -> Outgoing:
        receipt, proof = await self._denials.write(envelope, job.admitted.envelope, job.admitted.digest, error, now)
        if receipt is None:
            raise error
        return Outgoing(Invoked(receipt=pack(receipt), proof=base64.b64encode(proof).decode()).to_bytes())

    async def _go_on(self, job: Job, step: AdmittedStep, row: HeldRow) -> Outgoing:
        """Answer a step whose output was held for the owner before this process began."""
        intent, held, started, done = await asyncio.to_thread(self._release.resumed, row)

        job.meter = StepMeter.used_up(intent.reserved) if intent.reserved is not None else None

        async def known() -> Ran:
            return "ok", "", done

        slot = ReleaseSlot(step.admitted.plan.slot_seconds)
        answer = await self._conclude(job, step, intent, started, slot, known(), held=held, row=row)
        job.answers = {step.envelope.digest: answer}
        return answer

    async def _conclude(
        self,
        job: Job,
        step: AdmittedStep,
        intent: Intent,
        started: datetime,
        slot: ReleaseSlot,
        run: Awaitable[Ran],
        *,
        held: Held | None = None,
        row: HeldRow | None = None,
    ) -> Outgoing:
        """From what a step came to, to its answer: the owner's review, the end of the slot, the OUTCOME."""
        try:
            outcome, code, done = await run
            if job.meter is not None:
                job.meter.stop()
            held = held or job.held_by()
            if done is not None and job.admitted.demands(step.invocation.action).review:
                row = row or await self._release.hold(job, step, intent, held, started, done)
                outcome, code = await self._release.outcome(job, row)
                done = done if outcome == "ok" else None
            number = await slot.end(job.stopped)
            if job.stopped.is_set() and done is not None:
                outcome, code, done = "killed", job.reason, None
            ended = slot.moment(started, number) or self._clock()
            if done is not None and job.masks is not None:
                return await self._opener.run(job, job.masks, step, intent, started, ended, done, held)
            if done is not None:
                try:
                    return await self._settle(job, step, intent, started, ended, outcome, code, done, held)
                except DeniedError as error:  # stopped or revoked before the OUTCOME was durable: nothing leaves
                    outcome, code = "killed", job.reason or error.code
            job.stop(code)
            return await self._settle(job, step, intent, started, ended, outcome, code, None, held)
        except StillHeldError:
            raise
        except (UnavailableError, LedgerError):
            # An INTENT stands open. Nothing leaves; the OUTCOME follows as soon as the ledger takes it (see sweep).
            job.stop("ledger-unavailable")
            self._unsettled = True
            raise
        finally:
            if job.stopped.is_set():
                await self._end_session(job)

    async def _run_until_stopped(
        self, job: Job, step: AdmittedStep, content_header: bytes, body: memoryview, sent: Content | None
    ) -> Ran:
        plan = job.admitted.plan.id
        work = asyncio.create_task(self._stages.run(job, step, content_header, body, sent))
        stop = asyncio.create_task(job.stopped.wait())
        left = job.meter.left if job.meter is not None else None
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED, timeout=left)
        stop.cancel()
        if not (work.done() or job.stopped.is_set()):
            job.strike(METERED_TIME)
        if job.stopped.is_set():
            if job.session is not None:
                await job.session.kill()
            work.cancel()
            await until_done(work)
            if not work.cancelled():
                work.exception()
            return "killed", job.reason, None
        try:
            done = work.result()
            self._steps.passed(plan, step.invocation, done)
            return "ok", "", done
        except DeniedError as error:
            log.info("output-refused", plan=plan, code=error.code, reason=str(error))
            self._steps.ended(plan, step.invocation, "denied", error.code, str(error))
            return "denied", visible(error), None
        except KeyongError as error:
            log.warning("job-failed", plan=plan, code=error.code, reason=str(error))
            self._steps.ended(plan, step.invocation, "failed", error.code, str(error))
            return "failed", visible(error), None
        except Exception as error:
            # Its text may hold a row's value; type and place do not.
            log.error("line-failed", plan=plan, error=type(error).__name__, at=place_of(error))
            self._steps.ended(plan, step.invocation, "failed", INTERNAL, type(error).__name__)
            return "failed", INTERNAL, None

    async def _settle(
        self,
        job: Job,
        step: AdmittedStep,
        intent: Intent,
        started: datetime,
        ended: datetime,
        outcome: Outcome,
        code: str,
        done: Done | None,
        held: Held,
        opened: Opened | None = None,
    ) -> Outgoing:
        """Write OUTCOME, then and only then hand on what leaves."""
        receipt: Receipt = of_step(
            step,
            intent.index,
            intent.decision,
            held,
            outcome=outcome,
            code=code,
            done=done,
            runtime=self._runtime.digest,
            started=started,
            ended=ended,
            drawn=intent.micro_rho,
            metered=job.meter.charge(total_bytes(done.buffers) if done else 0) if job.meter is not None else None,
        )
        envelope = receipt.seal(self._key)
        if job.masks is None:
            await self._keep(job, step, done)
        if outcome != "ok":
            appended = await self._record.settle(receipt, envelope)
        else:
            appended = await self._record.settle(receipt, envelope, lambda: self._check_in_force(job), opened)
        job.laps.lap("outcome")
        self._metrics.settled(receipt.stage, outcome, job.laps.seconds)
        log.info(
            "step",
            plan=job.admitted.plan.id,
            round=receipt.round,
            stage=receipt.stage,
            outcome=outcome,
            code=code,
            seconds=round((receipt.ended - receipt.started).total_seconds(), 3),
            parts={part: round(spent, 6) for part, spent in job.laps.seconds.items()},
        )
        proof = await self._record.proof(appended)
        if step.admitted.demands(step.invocation.action).review:
            await asyncio.to_thread(self._release.outputs.drop, step.envelope.digest)
        leaves = done if outcome == "ok" and job.masks is None else None
        header = Invoked(
            receipt=pack(envelope),
            proof=base64.b64encode(proof).decode(),
            reply=leaves.header if leaves else "",
            padding=" " * leaves.padding if leaves else "",
        )
        return Outgoing(header.to_bytes(), leaves.buffers if leaves else ())

    async def _keep(self, job: Job, step: AdmittedStep, done: Done | None) -> None:
        # Before the OUTCOME: a file without one answers nothing, an OUTCOME without its file costs the round this part.
        plan = job.admitted.digest
        job.reply = None
        if done is None or total_bytes(done.buffers) > SMALL_BYTES:
            await asyncio.to_thread(self._kept.drop, plan)
        if done is not None:
            reply = KeptReply(done.header, done.buffers)
            if total_bytes(done.buffers) <= SMALL_BYTES:
                await asyncio.to_thread(self._kept.keep, plan, step.envelope.digest, reply, _rests_on(job))
            else:
                job.reply = (step.envelope.digest, reply)

    # -- ending -------------------------------------------------------------------------------------------------------

    async def close_job(self, plan_digest: str, reason: str = CLOSED) -> None:
        """End a job: a running step killed at once, snapshot removed, the app's output kept for the owner."""
        job = self.jobs.get(plan_digest)
        if job is not None:
            job.stopping = job.stopping or reason == STOPPED
            job.stop(reason)
            if job.session is not None and not (reason == CLOSED and self._stages.queries.parks(job)):
                job.session.strike()  # before anything that could have to wait
            if reason not in _KEEPS_ANSWER:
                job.answers = {}
            async with job.lock:  # the plan's next session is not before this one's end: they share a folder
                try:
                    await self._end_session(job)
                    if job.reply is not None and job.answers:
                        await asyncio.to_thread(self._kept.keep, plan_digest, *job.reply, _rests_on(job))
                finally:
                    job.release()
                    if self.jobs.get(plan_digest) is job:
                        del self.jobs[plan_digest]
        if reason not in _KEEPS_ANSWER and plan_digest not in self.jobs:
            await asyncio.to_thread(self._kept.drop, plan_digest)
            await self._return_leak(plan_digest)

    async def _return_leak(self, plan_digest: str) -> None:
        try:
            await self._record.return_leak(plan_digest)
            await self._record.return_budget(plan_digest)
        except (UnavailableError, LedgerError) as error:
            log.warning("leak-not-returned", plan=plan_digest, code=error.code)  # it stays reserved

    async def _end_session(self, job: Job) -> None:
        session, job.session = job.session, None
        if isinstance(session, QuerySession) and job.reason == CLOSED:
            await self._stages.queries.parked.park(session)
        elif session is not None:
            await session.close()

    async def revoke(self, agreement_digest: str, reason: str = "agreement-revoked") -> None:
        """End every job that rests on an agreement, at once."""
        await self._close_all(
            {digest: reason for digest, job in self.jobs.items() if job.admitted.agreement_digest == agreement_digest}
        )

    def strike(self, agreement_digest: str, why: str) -> None:
        """End at once what runs under an agreement that its owner is about to end or to suspend; nothing is written first.

        Its steps settle as killed; its jobs close once that is in the store (:meth:`uphold`).

        Args:
            why: ``revoked`` or ``suspended``.
        """
        for job in self.jobs.values():
            if job.admitted.agreement_digest == agreement_digest:
                job.strike(f"agreement-{why}")

    async def uphold(self) -> None:
        """End at once every job whose agreement was revoked or suspended; the owner's command waits for this."""
        agreements = {job.admitted.agreement_digest for job in self.jobs.values()}
        fallen = await asyncio.to_thread(lambda: {one: self._grounds.fallen(one) for one in agreements})
        await asyncio.gather(*(self.revoke(one, reason) for one, reason in fallen.items() if reason))
        await self._end_parked()

    async def _end_parked(self) -> None:
        agreements = await asyncio.to_thread(self._stages.queries.parked.ended, self._grounds.fallen)
        await self._stages.queries.parked.sweep(agreements.__contains__)

    async def sweep(self) -> None:
        """End jobs that lost their ground: agreement ended, plan expired, parties changed, long idle. Settle what is
        open."""
        jobs = dict(self.jobs)
        reasons = await asyncio.to_thread(lambda: {digest: self._grounds.lost(job) for digest, job in jobs.items()})
        await self._close_all({digest: reason for digest, reason in reasons.items() if reason})
        await self._end_parked()
        await asyncio.to_thread(self._kept.sweep, self._clock(), self._grounds.ended)
        await self._withdraw_held()
        if time.monotonic() - self._tidied > TIDY_SECONDS:
            await asyncio.to_thread(self._steps.sweep)
            self._tidied = time.monotonic()
        if self._unsettled:
            await self.close_open_steps()
            self._unsettled = False

    def tidy(self) -> None:
        """Remove what no job needs any more: logs whose time is over, held outputs without a step; before serving."""
        self._release.outputs.sweep()
        self._steps.sweep()

    async def close_open_steps(self) -> int:
        """Settle what a crash left open, but for what waits for its owner; returns how many."""
        await self._withdraw_held()
        waiting = await asyncio.to_thread(self._release.waiting, self._grounds.ended, frozenset(self._running))
        at_work = frozenset(self._running) | waiting
        return await close_open_steps(self._record, self._key, self._node, self._clock(), at_work)

    async def _withdraw_held(self) -> None:
        """Settle held outputs that will not leave and whose job is not open here to say so."""
        for row in await asyncio.to_thread(self._release.over, self._grounds.ended, frozenset(self._running)):
            if row.invocation not in self._running:
                ended = await asyncio.to_thread(self._grounds.ended, row.agreement)
                lost = row.decision != "refused" and await asyncio.to_thread(self._release.lost, row, ())
                outcome: Outcome = "killed" if ended or lost else "denied"
                code = "agreement-revoked" if ended else MASKS_LOST if lost else NOT_RELEASED
                await close_step(self._record, self._key, self._node, self._clock(), row.intent, outcome, code)
                await asyncio.to_thread(self._release.outputs.drop, row.invocation)

    async def drain(self, seconds: float) -> None:
        """Take no further step, and give those that run ``seconds`` to end by themselves."""
        self._draining = True
        if running := [work for job in self.jobs.values() if not job.held for work in job.work.values()]:
            await asyncio.wait(running, timeout=seconds)

    async def close(self) -> None:
        """End all jobs; steps that run settle as killed."""
        self._draining = True
        running = [work for job in self.jobs.values() for work in job.work.values()]
        await self._close_all(dict.fromkeys(self.jobs, STOPPED))
        await asyncio.gather(*running, return_exceptions=True)
        await self._stages.queries.parked.close()
        await self._stages.workers.close()
        await self._refusals.flush()

    async def _close_all(self, reasons: dict[str, str]) -> None:
        await asyncio.gather(*(self.close_job(digest, reason) for digest, reason in reasons.items()))


def meter_of(intent: Intent, slot_seconds: int) -> StepMeter | None:
    """What counts a step's time from now on; None where its agreement counts none."""
    return StepMeter(intent.reserved, slot_seconds) if intent.reserved is not None else None


def most_of(step: AdmittedStep, sent: Content | None) -> dict[str, int]:
    """The longest that a step may compute and the largest reply it may give: what is reserved where it is counted."""
    plan = step.admitted.plan
    seconds = math.ceil(2 * (plan.setup_seconds + plan.round_seconds))
    slots = math.ceil(seconds / plan.slot_seconds) * plan.slot_seconds if plan.slot_seconds else seconds
    if plan.query is not None:
        size = plan.outputs.maximal_bytes
    else:
        size = most_bytes_of(sent, plan.outputs.of(step.invocation.stage)) if sent is not None else 0
    return {"seconds": slots, "bytes": size}


def _rests_on(job: Job) -> RestsOn:
    admitted = job.admitted
    return RestsOn(admitted.agreement_digest, min(admitted.plan.expires, admitted.agreement.expires))
