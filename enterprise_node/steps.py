"""One step of an open job, from its invocation to what it came to.

    admission -> decision + INTENT -> stages (materialise, sandbox, gate, protection) -> review -> slot -> OUTCOME

Whatever ends a step other than ``ok`` ends the job here: the app's state is gone, and a gate that could be asked again and
again would be a door.
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
from enterprise_node.denial import Denials
from enterprise_node.grounds import Grounds
from enterprise_node.held import HeldRow
from enterprise_node.job import Job
from enterprise_node.laps import Laps
from enterprise_node.opener import Opener
from enterprise_node.outcomes import INTERNAL, visible
from enterprise_node.receipts import Done, Held
from enterprise_node.record import Intent, Record
from enterprise_node.release import Release, StillHeldError
from enterprise_node.release_slot import ReleaseSlot
from enterprise_node.settlement import Settlement
from enterprise_node.stages import Stages, bits_of, cost_of, most_bytes_of
from enterprise_node.step_log import StepLog
from enterprise_node.step_meter import METERED_TIME, StepMeter
from federation.errors import DeniedError, KeyongError, UnavailableError
from federation.home import Home
from federation.jobs.codec import Content, ContentError, content_digest, decode
from federation.ledger import LedgerError
from federation.statements import Envelope
from federation.statements.receipt import Outcome
from federation.wire.messages import Invoked, pack
from federation.wire.peer import Outgoing, place_of

log = structlog.get_logger("keyong.node")

Ran = tuple[Outcome, str, Done | None]
"""What running a step came to: outcome, the code that others are told, and what may leave."""


class Steps:
    """Takes steps of open jobs to their end, each job's one after the other.

    Args:
        runtime: digest of what jobs run on.
        opener: takes masked steps on from the gate.
    """

    def __init__(
        self,
        home: Home,
        record: Record,
        grounds: Grounds,
        stages: Stages,
        release: Release,
        settlement: Settlement,
        opener: Opener,
        denials: Denials,
        log_of_steps: StepLog,
        runtime: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._home = home
        self._node = home.identity.member
        self._record = record
        self._grounds = grounds
        self._stages = stages
        self._release = release
        self._settlement = settlement
        self._opener = opener
        self._denials = denials
        self._log = log_of_steps
        self._runtime = runtime
        self._clock = clock
        self.running: set[str] = set()
        """Invocations at work, by their digest."""
        self.unsettled = False
        """An INTENT may stand open whose step is not at work any more."""

    async def take(
        self, job: Job, envelope: Envelope, content_header: bytes, body: memoryview, content: str
    ) -> Outgoing:
        """Take one invocation down the line, after those that came before it; see :meth:`Line.invoke`."""
        async with job.lock:
            started, job.laps = self._clock(), Laps()
            self.running.add(envelope.digest)
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
                        guard = functools.partial(self._grounds.check_in_force, job)
                        cost = cost_of(step.admitted.plan, step.invocation.stage, sent)
                        intent = await self._record.intend(step, facts, guard, self._runtime, bits, cost)
                except (UnavailableError, LedgerError):
                    # Not acknowledged is not the same as not written: an INTENT that stands all the same is settled.
                    self.unsettled = True
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
                self.running.discard(envelope.digest)
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
        facts = self._grounds.facts(action, job.dataset, job.admitted, now)
        try:
            return step, decode(header, body), row, facts
        except ContentError:
            return step, None, row, facts  # fails where it is run

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
                    return await self._settlement.settle(job, step, intent, started, ended, outcome, code, done, held)
                except DeniedError as error:  # stopped or revoked before the OUTCOME was durable: nothing leaves
                    outcome, code = "killed", job.reason or error.code
            job.stop(code)
            return await self._settlement.settle(job, step, intent, started, ended, outcome, code, None, held)
        except StillHeldError:
            raise
        except (UnavailableError, LedgerError):
            # An INTENT stands open. Nothing leaves; the OUTCOME follows as soon as the ledger takes it (see sweep).
            job.stop("ledger-unavailable")
            self.unsettled = True
            raise
        finally:
            if job.stopped.is_set():
                await self._stages.end(job)

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
            self._log.passed(plan, step.invocation, done)
            return "ok", "", done
        except DeniedError as error:
            log.info("output-refused", plan=plan, code=error.code, reason=str(error))
            self._log.ended(plan, step.invocation, "denied", error.code, str(error))
            return "denied", visible(error), None
        except KeyongError as error:
            log.warning("job-failed", plan=plan, code=error.code, reason=str(error))
            self._log.ended(plan, step.invocation, "failed", error.code, str(error))
            return "failed", visible(error), None
        except Exception as error:
            # Its text may hold a row's value; type and place do not.
            log.error("line-failed", plan=plan, error=type(error).__name__, at=place_of(error))
            self._log.ended(plan, step.invocation, "failed", INTERNAL, type(error).__name__)
            return "failed", INTERNAL, None


def meter_of(intent: Intent, slot_seconds: int) -> StepMeter | None:
    """What counts a step's time from now on; None where its agreement counts none."""
    return StepMeter(intent.reserved, slot_seconds) if intent.reserved is not None else None


def most_of(step: AdmittedStep, sent: Content | None) -> dict[str, int]:
    """The longest that a step may compute and the largest reply it may give: what is reserved where it is counted."""
    plan = step.admitted.plan
    seconds = math.ceil(2 * (plan.setup_seconds + plan.round_seconds))
    slots = math.ceil(seconds / plan.slot_seconds) * plan.slot_seconds if plan.slot_seconds else seconds
    if plan.query is not None or plan.bilateral is not None:
        size = plan.outputs.maximal_bytes
    else:
        size = most_bytes_of(sent, plan.outputs.of(step.invocation.stage)) if sent is not None else 0
    return {"seconds": slots, "bytes": size}
