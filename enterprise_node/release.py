"""Between the gate and the OUTCOME: the owner's review where the agreement demands one, then the end of the time slot."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import structlog

from enterprise_node.admission import AdmittedStep
from enterprise_node.held import HeldHead, HeldOutputs, HeldRow
from enterprise_node.job import Job
from enterprise_node.outcomes import NOT_RELEASED
from enterprise_node.receipts import Done, Held
from enterprise_node.record import Intent, Record
from federation.errors import UnavailableError
from federation.home import Home
from federation.statements import DecisionRecord, Metered, instant_text, parse_instant
from federation.statements.receipt import Outcome

log = structlog.get_logger("keyong.node")


class StillHeldError(UnavailableError):
    """The node ends while an output waits for its owner; it waits on, and is asked for again."""

    code = "stopping"


class Release:
    """Holds outputs for the owner and tells what became of them."""

    def __init__(self, home: Home, record: Record, clock: Callable[[], datetime]) -> None:
        self._record = record
        self._clock = clock
        self.outputs = HeldOutputs(home, record.ledger)

    async def hold(
        self, job: Job, step: AdmittedStep, intent: Intent, held: Held, started: datetime, done: Done
    ) -> HeldRow:
        """Put an output aside until its owner has looked at it."""
        plan, invocation = step.admitted.plan, step.invocation
        if done.summary is None:
            raise ValueError("an output is held with its summary")
        at = self._clock()
        least = started + timedelta(seconds=plan.setup_seconds + plan.round_seconds)
        deadline = min(max(at, least) + timedelta(seconds=plan.review_seconds), plan.expires)
        head = HeldHead(
            job=plan.id,
            plan=step.admitted.digest,
            requester=plan.requester,
            purpose=plan.purpose,
            agreement=step.admitted.agreement_digest,
            dataset=step.admitted.mine.dataset,
            code=plan.code,
            round=invocation.round,
            rounds=plan.rounds,
            stage=invocation.stage,
            started=instant_text(started),
            held=instant_text(at),
            deadline=instant_text(deadline),
            header=done.header,
            padding=done.padding,
            digest=done.digest,
            weight=done.weight,
            saturated=done.saturated,
            normalised=done.normalised,
            leak_bits=done.leak_bits,
            snapshot=held.snapshot,
            rules=held.rules,
            isolation=held.isolation,
            summary=done.summary,
        )
        row = await self.outputs.hold(step.envelope.digest, intent.index, head, done.buffers)
        log.info("output-held", plan=plan.id, output=row.name, deadline=head.deadline)
        return row

    async def outcome(self, job: Job, row: HeldRow) -> tuple[Outcome, str]:
        """Wait for the owner, and say how the step ends.

        Raises:
            StillHeldError: the node ends first; the step stays open.
        """
        job.held = True
        try:
            decision = await self.outputs.decided(row, self._clock, job.stopped)
        finally:
            job.held = False
        if decision == "released" and not job.stopped.is_set():
            return "ok", ""
        if job.stopped.is_set() and decision != "refused":
            if job.stopping:
                raise StillHeldError("this node is stopping; the output waits on for its owner")
            return "killed", job.reason
        log.info("output-not-released", plan=row.plan, output=row.name, decision=decision or "expired")
        return "denied", NOT_RELEASED

    def resumed(self, row: HeldRow) -> tuple[Intent, Held, datetime, Done]:
        """A step whose output was held before this process began, as far as it had come; blocking."""
        head, body = self.outputs.read(row)
        fields = self._record.ledger.fields(row.intent)
        done = Done(
            [body],
            head.header,
            head.digest,
            head.weight,
            head.normalised,
            head.saturated,
            head.leak_bits,
            head.padding,
            head.summary,
        )
        reserved = Metered.model_validate(fields["metered"]) if "metered" in fields else None
        decision = DecisionRecord.model_validate(fields["decision"])
        intent = Intent(row.intent, decision, reserved, self._record.drawn(row.intent))
        return intent, Held(head.snapshot, head.isolation, head.rules), parse_instant(head.started), done

    def waiting(self, ended: Callable[[str], bool], running: Collection[str]) -> frozenset[str]:
        """Invocations whose output still waits, or was released and not yet asked for; blocking.

        Args:
            ended: whether an agreement is not in force any more.
            running: invocations at work in this process.
        """
        return frozenset(row.invocation for row in self.outputs.rows() if not self._over(row, ended, running))

    def over(self, ended: Callable[[str], bool], running: Collection[str]) -> list[HeldRow]:
        """Outputs that will not leave: refused, out of time, of an agreement that ended, or `lost`; blocking."""
        return [row for row in self.outputs.rows() if self._over(row, ended, running)]

    def lost(self, row: HeldRow, running: Collection[str]) -> bool:
        """Whether an output's masks went with the process that made them: it could not be opened with the others'."""
        return row.invocation not in running and self._record.ledger.fields(row.intent)["protection"] != "fed:none"

    def _over(self, row: HeldRow, ended: Callable[[str], bool], running: Collection[str]) -> bool:
        if row.decision == "refused" or self._clock() >= row.deadline or ended(row.agreement):
            return True
        return self.lost(row, running)
