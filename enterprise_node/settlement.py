"""The end of a step: what may leave is kept for whoever asks again, the OUTCOME made durable, and only then is it handed on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import datetime

import structlog

from enterprise_node.admission import AdmittedStep
from enterprise_node.answers import SMALL_BYTES, KeptReplies, KeptReply, RestsOn
from enterprise_node.job import Job
from enterprise_node.metrics import NodeMetrics
from enterprise_node.receipts import Done, Held, of_step
from enterprise_node.record import Intent, Record
from enterprise_node.release import Release
from federation.crypto import SigningKey
from federation.secagg import Opened
from federation.statements import Receipt
from federation.statements.receipt import Outcome
from federation.wire.body import total_bytes
from federation.wire.messages import Invoked, pack
from federation.wire.peer import Outgoing

log = structlog.get_logger("keyong.node")


class Settlement:
    """Writes the OUTCOME of each step.

    Args:
        key: this node's, for statements.
        runtime: digest of what jobs run on.
        check_in_force: raises once a job was stopped or its agreement ended; asked in the OUTCOME's transaction.
    """

    def __init__(
        self,
        key: SigningKey,
        record: Record,
        release: Release,
        kept: KeptReplies,
        runtime: str,
        metrics: NodeMetrics,
        check_in_force: Callable[[Job], None],
    ) -> None:
        self._key = key
        self._record = record
        self._release = release
        self._kept = kept
        self._runtime = runtime
        self._metrics = metrics
        self._check_in_force = check_in_force

    async def settle(
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
            runtime=self._runtime,
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
                await asyncio.to_thread(self._kept.keep, plan, step.envelope.digest, reply, rests_on(job))
            else:
                job.reply = (step.envelope.digest, reply)


def rests_on(job: Job) -> RestsOn:
    """What a kept answer of a job is good for."""
    admitted = job.admitted
    return RestsOn(admitted.agreement_digest, min(admitted.plan.expires, admitted.agreement.expires))
