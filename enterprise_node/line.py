"""The one straight line every invocation takes on this node.

    admission -> decision + INTENT -> materialise -> sandbox -> output gate -> protection -> OUTCOME

Each stage is a module of its own and a function of what the one before handed on. Here the parts are put together: the jobs
that are open (:mod:`~enterprise_node.open_jobs`), their steps (:mod:`~enterprise_node.steps`) and how each is settled
(:mod:`~enterprise_node.settlement`); and what is left over is settled, so that an INTENT is followed by an OUTCOME whatever
happens in between (invariant 2).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

from enterprise_node._threads import until_done
from enterprise_node.answers import KeptReplies
from enterprise_node.denial import Denials
from enterprise_node.grounds import Grounds
from enterprise_node.job import CLOSED, STOPPED, Job, JobEndedError
from enterprise_node.mask_rules import MaskRules
from enterprise_node.metrics import NodeMetrics
from enterprise_node.open_jobs import OpenJobs
from enterprise_node.opener import Opener
from enterprise_node.outcomes import NOT_RELEASED
from enterprise_node.record import Record
from enterprise_node.recovery import close_open_steps, close_step
from enterprise_node.release import Release
from enterprise_node.settlement import Settlement
from enterprise_node.stages import Stages
from enterprise_node.step_log import StepLog
from enterprise_node.steps import Steps
from enterprise_node.store import NodeStore
from federation.errors import UnavailableError
from federation.holdings import Holdings
from federation.home import Home
from federation.ledger import Refusals
from federation.statements import Envelope
from federation.statements.receipt import Outcome
from federation.wire.messages import JobOpened
from federation.wire.peer import Outgoing
from sandbox import Runtime, Tier

TIDY_SECONDS = 3600.0
"""How often logs whose time is over are looked for."""
MASKS_LOST = "mask-keys"


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
        self._record = record
        self._clock = clock
        self._key = home.key("statement")
        self._node = home.identity.member
        told = lambda withdrawal: self.on_withdrawal(withdrawal)  # noqa: E731
        metrics = metrics or NodeMetrics()
        self._grounds = Grounds(home, record, store, holdings, runtime.digest, clock)
        self.times = self._grounds.times
        in_force = lambda job: self._grounds.check_in_force(job)  # noqa: E731  # as it is then, in each transaction
        self._stages = Stages(home, runtime, waiting)
        self._refusals = Refusals(record.ledger, time.monotonic)
        denials = Denials(self._refusals, record, self._node, self._key, metrics.denied)
        self._kept = KeptReplies(home.folder("answers"))
        self._release = Release(home, record, clock)
        self._log = StepLog(home)
        settlement = Settlement(self._key, record, self._release, self._kept, runtime.digest, metrics, in_force)
        opener = Opener(record, settlement, in_force, clock, told)
        self._steps = Steps(
            home, record, self._grounds, self._stages, self._release, settlement, opener, denials, self._log,
            runtime.digest, clock,
        )  # fmt: skip
        rules = MaskRules(home, self._grounds, record, clock)
        self._open = OpenJobs(
            self._node, self._key, record, self._grounds, rules, denials, self._stages, self._kept, clock
        )
        self._denials = denials
        self._tidied = time.monotonic()
        self.on_withdrawal: Callable[[Envelope], None] = lambda _: None
        """Hears this node's word that it takes a masked vector back, to be told to the others."""

    @property
    def jobs(self) -> dict[str, Job]:
        """The jobs that are open, by the digest of their plan."""
        return self._open.jobs

    def isolate_at(self, tier: Tier) -> None:
        """Demand this tier of every session from now on; what the canary proved, before the first job is opened."""
        self._grounds.tier = self._stages.tier = tier

    @property
    def waiting(self) -> int:
        """Workers that are started and wait for a job."""
        return len(self._stages.workers)

    async def fill(self) -> None:
        """Start the workers in waiting that are wanted; not beside a step, which it would slow down."""
        if not (self._steps.running or self._open.draining):
            await self._stages.workers.fill(self._stages.tier)

    async def open_job(self, envelope: Envelope, bundle_bytes: memoryview) -> JobOpened:
        """Admit a plan; see :meth:`OpenJobs.take_on`."""
        return await self._open.take_on(envelope, bundle_bytes)

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
            if self._open.draining:
                raise UnavailableError("this node is stopping", code="stopping")
            work = asyncio.create_task(self._steps.take(job, envelope, content_header, body, content))
            job.began(envelope.digest, work)
        try:
            return await job.answer(envelope.digest)
        except asyncio.CancelledError:
            if not lost():
                job.strike("cancelled")
                await until_done(work)
            raise

    async def close_job(self, plan_digest: str, reason: str = CLOSED) -> None:
        """End a job; see :meth:`OpenJobs.close`."""
        await self._open.close(plan_digest, reason)

    def strike(self, agreement: str, why: str) -> None:
        """End at once what runs under an agreement; see :meth:`OpenJobs.strike`."""
        self._open.strike(agreement, why)

    async def revoke(self, agreement_digest: str, reason: str = "agreement-revoked") -> None:
        """End every job that rests on an agreement, at once."""
        await self._open.revoke(agreement_digest, reason)

    async def uphold(self) -> None:
        """End at once every job whose agreement was revoked or suspended; the owner's command waits for this."""
        await self._open.uphold()

    async def sweep(self) -> None:
        """End jobs that lost their ground: agreement ended, plan expired, parties changed, long idle. Settle what is
        open."""
        jobs = dict(self.jobs)
        reasons = await asyncio.to_thread(lambda: {digest: self._grounds.lost(job) for digest, job in jobs.items()})
        await self._open.close_all({digest: reason for digest, reason in reasons.items() if reason})
        await self._open.end_parked()
        await asyncio.to_thread(self._kept.sweep, self._clock(), self._grounds.ended)
        await self._withdraw_held()
        if time.monotonic() - self._tidied > TIDY_SECONDS:
            await asyncio.to_thread(self._log.sweep)
            self._tidied = time.monotonic()
        if self._steps.unsettled:
            await self.close_open_steps()
            self._steps.unsettled = False

    def tidy(self) -> None:
        """Remove what no job needs any more: logs whose time is over, held outputs without a step; before serving."""
        self._release.outputs.sweep()
        self._log.sweep()

    async def close_open_steps(self) -> int:
        """Settle what a crash left open, but for what waits for its owner; returns how many."""
        await self._withdraw_held()
        waiting = await asyncio.to_thread(self._release.waiting, self._grounds.ended, frozenset(self._steps.running))
        at_work = frozenset(self._steps.running) | waiting
        return await close_open_steps(self._record, self._key, self._node, self._clock(), at_work)

    async def _withdraw_held(self) -> None:
        """Settle held outputs that will not leave and whose job is not open here to say so."""
        for row in await asyncio.to_thread(self._release.over, self._grounds.ended, frozenset(self._steps.running)):
            if row.invocation not in self._steps.running:
                ended = await asyncio.to_thread(self._grounds.ended, row.agreement)
                lost = row.decision != "refused" and await asyncio.to_thread(self._release.lost, row, ())
                outcome: Outcome = "killed" if ended or lost else "denied"
                code = "agreement-revoked" if ended else MASKS_LOST if lost else NOT_RELEASED
                await close_step(self._record, self._key, self._node, self._clock(), row.intent, outcome, code)
                await asyncio.to_thread(self._release.outputs.drop, row.invocation)

    async def drain(self, seconds: float) -> None:
        """Take no further step, and give those that run ``seconds`` to end by themselves."""
        self._open.draining = True
        if running := [work for job in self.jobs.values() if not job.held for work in job.work.values()]:
            await asyncio.wait(running, timeout=seconds)

    async def close(self) -> None:
        """End all jobs; steps that run settle as killed."""
        self._open.draining = True
        running = [work for job in self.jobs.values() for work in job.work.values()]
        await self._open.close_all(dict.fromkeys(self.jobs, STOPPED))
        await asyncio.gather(*running, return_exceptions=True)
        await self._stages.queries.parked.close()
        await self._stages.workers.close()
        await self._refusals.flush()
