"""The way of a masked step from the gate to its OUTCOME: its vector leaves, which says nothing; then it is opened, or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from enterprise_node.admission import AdmittedStep
from enterprise_node.job import Job
from enterprise_node.masked_round import ABANDONED, ABORTED, JobMasks, MaskedRound, decided, opening_of
from enterprise_node.receipts import Done, Held
from enterprise_node.record import Intent, Record
from enterprise_node.settlement import Settlement
from federation.errors import DeniedError, UnavailableError
from federation.ledger import LedgerError
from federation.secagg import Opened
from federation.statements import Envelope
from federation.statements.receipt import Outcome
from federation.wire.body import total_bytes
from federation.wire.messages import Invoked, pack
from federation.wire.peer import Outgoing

MASKED_SECONDS = 600.0
"""How long a masked vector waits to be opened, beyond twice what the others may take for theirs and for their reviews."""


class Opener:
    """Takes masked steps to their end.

    Args:
        check_in_force: raises once a job was stopped or its agreement ended.
        on_withdrawal: hears that this node takes a vector back.
    """

    def __init__(
        self,
        record: Record,
        settlement: Settlement,
        check_in_force: Callable[[Job], None],
        clock: Callable[[], datetime],
        on_withdrawal: Callable[[Envelope], None],
    ) -> None:
        self._record = record
        self._settlement = settlement
        self._check_in_force = check_in_force
        self._clock = clock
        self._on_withdrawal = on_withdrawal

    async def run(
        self,
        job: Job,
        masks: JobMasks,
        step: AdmittedStep,
        intent: Intent,
        started: datetime,
        ended: datetime,
        done: Done,
        held: Held,
    ) -> Outgoing:
        """Hand on a masked vector, wait until its round is opened or given up, and settle the step; returns its answer."""
        plan = job.admitted.plan
        waiting = masks.sign(step, done.digest, total_bytes(done.buffers), held.values)

        async def settle(outcome: Outcome, code: str, left: Done | None, opened: Opened | None = None) -> Outgoing:
            at = ended if plan.slot_seconds else self._clock()
            return await self._settlement.settle(job, step, intent, started, at, outcome, code, left, held, opened)

        left: Done | None = None
        try:
            if masks.live:
                await asyncio.to_thread(masks.check_reading)
            answer = await self._hand_on(job, step, intent, waiting, done)
            left = done
            # For as long as another company's owner may take to look at its own, too.
            limit = 2 * (plan.round_seconds + plan.setup_seconds) + plan.pause_seconds + MASKED_SECONDS
            verdict = await decided(waiting, job.stopped, limit)
            code = verdict if isinstance(verdict, str) and verdict else job.reason or ABANDONED
            if isinstance(verdict, Opened):
                settled = await settle("ok", "", done, verdict)
                waiting.answer.set_result(opening_of(settled, masks.release()))
                return answer
        except DeniedError as error:  # stopped or revoked, or such a sum was opened, before the OUTCOME was durable
            code = job.reason or error.code
        except (UnavailableError, LedgerError) as error:
            waiting.fail(error)
            raise
        if left is not None and code != ABORTED:
            self._on_withdrawal(masks.withdraw(code))
        job.stop(code)
        try:
            settled = await settle("killed", code, left)
        except (UnavailableError, LedgerError) as error:
            waiting.fail(error)
            raise
        waiting.answer.set_result(opening_of(settled))
        return settled

    async def _hand_on(
        self, job: Job, step: AdmittedStep, intent: Intent, waiting: MaskedRound, done: Done
    ) -> Outgoing:
        if waiting.statement is None:
            raise ValueError("a masked vector leaves with its node's word on it")
        await self._record.note_stage(
            intent.index, "masked-input", waiting.statement, lambda: self._check_in_force(job)
        )
        header = Invoked(masked=pack(waiting.statement)).to_bytes()
        answer = Outgoing(header, done.buffers)
        job.answers = {step.envelope.digest: answer}
        job.laps.lap("masks")
        early: asyncio.Future[Outgoing] | None = job.early.get(step.envelope.digest)
        if early is not None and not early.done():
            early.set_result(answer)
        return answer
