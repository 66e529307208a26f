"""The jobs that are open at this node: how a plan becomes one, and how each of them ends.

Nothing is cancelled between a step's INTENT and its OUTCOME: a caller that goes away, a revocation and the node's own end all
*stop* the job, and its step then settles as killed.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import datetime

import structlog

from enterprise_node.answers import KeptReplies, KeptReply, KeptReplyError
from enterprise_node.denial import Denials
from enterprise_node.grounds import IDLE, SUSPENDED, Grounds
from enterprise_node.job import CLOSED, STOPPED, Job
from enterprise_node.mask_rules import MaskRules
from enterprise_node.masked_round import JobMasks
from enterprise_node.record import Record
from enterprise_node.settlement import rests_on
from enterprise_node.stages import Stages
from federation.crypto import SigningKey
from federation.errors import DeniedError, KeyongError, UnavailableError
from federation.ledger import LedgerError
from federation.statements import Envelope, Receipt
from federation.wire.messages import Invoked, JobOpened, pack
from federation.wire.peer import Outgoing

log = structlog.get_logger("keyong.node")

OPEN_JOBS = 16
"""Jobs open at once; each may hold a sandbox, a snapshot and its code."""
_KEEPS_ANSWER = (STOPPED, IDLE, SUSPENDED)
"""A job that ends so may be opened again, and its last answer asked for."""


class OpenJobs:
    """The jobs of one node, by the digest of their plan.

    Args:
        key: this node's, for statements.
        stages: what holds their sessions.
        kept: the last answer of each, on disk.
    """

    def __init__(
        self,
        node: str,
        key: SigningKey,
        record: Record,
        grounds: Grounds,
        mask_rules: MaskRules,
        denials: Denials,
        stages: Stages,
        kept: KeptReplies,
        clock: Callable[[], datetime],
    ) -> None:
        self._node = node
        self._key = key
        self._record = record
        self._grounds = grounds
        self._mask_rules = mask_rules
        self._denials = denials
        self._stages = stages
        self._kept = kept
        self._clock = clock
        self.draining = False
        """No further job, and no further step."""
        self.jobs: dict[str, Job] = {}

    async def take_on(self, envelope: Envelope, bundle_bytes: memoryview) -> JobOpened:
        """Admit a plan and say whether its first step would be permitted now. Nothing is reserved; a denial is
        recorded.

        A plan that is open already stays as it is, whoever asks again. One whose session was stopped is opened anew;
        what it may still do is asked of the ledger, step by step, and its last answer is given again from there.
        """
        now = self._clock()
        try:
            job = self.jobs.get(envelope.digest)
            if job is not None and job.stopped.is_set():
                await self.close(envelope.digest, STOPPED)
                job = None
            if job is None:
                if self.draining:
                    raise UnavailableError("this node is stopping", code="stopping")
                self._check_room()
                job = await asyncio.to_thread(self._consider, envelope, bundle_bytes, now)
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
        if admitted.plan.masked:
            self._mask_rules.check_cohort(admitted, job.dataset, admitted.members)
            job.masks = JobMasks(self._node, admitted, job.dataset, self._key, self._mask_rules, self._clock)
        job.answers = self._answered(envelope.digest)
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
        if last.outcome == "ok" and Receipt.read(envelope).protection == "fed:masked":
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

    async def close(self, plan_digest: str, reason: str = CLOSED) -> None:
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
                    await self._stages.end(job)
                    if job.reply is not None and job.answers:
                        await asyncio.to_thread(self._kept.keep, plan_digest, *job.reply, rests_on(job))
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

    async def revoke(self, agreement_digest: str, reason: str = "agreement-revoked") -> None:
        """End every job that rests on an agreement, at once."""
        await self.close_all(
            {digest: reason for digest, job in self.jobs.items() if job.admitted.agreement_digest == agreement_digest}
        )

    def strike(self, agreement: str, why: str) -> None:
        """End at once what runs under an agreement that its owner is about to end or to suspend; nothing is written first.

        Its steps settle as killed; its jobs close once that is in the store (:meth:`uphold`).

        Args:
            agreement: its digest or its id, whole.
            why: ``revoked`` or ``suspended``.
        """
        for job in self.jobs.values():
            if agreement in (job.admitted.agreement_digest, job.admitted.agreement.id):
                job.strike(f"agreement-{why}")
        self._stages.queries.parked.strike(agreement)

    async def uphold(self) -> None:
        """End at once every job whose agreement was revoked or suspended; the owner's command waits for this."""
        agreements = {job.admitted.agreement_digest for job in self.jobs.values()}
        fallen = await asyncio.to_thread(lambda: {one: self._grounds.fallen(one) for one in agreements})
        await asyncio.gather(*(self.revoke(one, reason) for one, reason in fallen.items() if reason))
        await self.end_parked()

    async def end_parked(self) -> None:
        """End engines that wait for the next query under an agreement that carries nothing now."""
        agreements = await asyncio.to_thread(self._stages.queries.parked.ended, self._grounds.fallen)
        await self._stages.queries.parked.sweep(agreements.__contains__)

    async def close_all(self, reasons: dict[str, str]) -> None:
        """End jobs, each for its own reason, all at once."""
        await asyncio.gather(*(self.close(digest, reason) for digest, reason in reasons.items()))
