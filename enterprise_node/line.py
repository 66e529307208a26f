"""The one straight line every invocation takes on this node.

    admission -> decision + INTENT -> materialise -> sandbox -> output gate -> protection -> OUTCOME

Each stage is a module of its own and a function of what the one before handed on; this module only strings them together and
makes sure that an INTENT is followed by an OUTCOME whatever happens in between (invariant 2).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from enterprise_node.admission import AdmittedPlan, AdmittedStep, admit_plan, admit_step
from enterprise_node.decision import columns_for
from enterprise_node.materialise import Snapshot, materialise
from enterprise_node.output_gate import check_reply
from enterprise_node.protection import check_available, protect
from enterprise_node.record import Intent, Record, denied_record
from enterprise_node.session import JobSession, SessionRequest, remove_tree
from enterprise_node.source_file import Reading
from enterprise_node.store import NodeStore, RegisteredDataset
from federation.errors import DeniedError, KeyongError, UsageError
from federation.holdings import Holdings
from federation.home import Home
from federation.jobs.codec import Content, ContentError, content_digest, decode, encode
from federation.policy import refusal
from federation.secagg import EncodedReply, Layout
from federation.statements import (
    Column,
    DecisionRecord,
    Envelope,
    Isolation,
    JobPlan,
    Receipt,
)
from federation.statements.code import CodeBundle
from federation.wire.body import Buffer
from federation.wire.messages import Invoked, JobOpened, pack
from federation.wire.peer import Outgoing
from sandbox import Runtime

log = structlog.get_logger("keyong.node")

RECEIPT_VALIDITY = timedelta(days=3650)
"""A receipt is evidence; it does not lapse with the agreement it rests on."""


class NotInForceError(DeniedError):
    """The agreement a plan names is not in force at this node."""

    code = "agreement"


@dataclass
class Job:
    """A plan this node has admitted, and what lives as long as it."""

    admitted: AdmittedPlan
    bundle: CodeBundle
    dataset: RegisteredDataset
    node_number: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: JobSession | None = None
    answers: dict[str, Outgoing] = field(default_factory=dict)
    """The answer to the last invocation by its digest: asked again, it is given again, never computed twice."""


@dataclass(frozen=True)
class Done:
    """What one run of the line produced, for its receipt."""

    reply: EncodedReply | Content
    buffers: list[Buffer]
    header: str
    digest: str
    weight: int
    normalised: int
    saturated: int


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
        self._spool = home.folder("spool")
        self.jobs: dict[str, Job] = {}

    # -- opening a job ------------------------------------------------------------------------------------------------

    async def open_job(self, envelope: Envelope, bundle_bytes: memoryview, node_number: int) -> JobOpened:
        """Admit a plan and say whether its first step would be permitted now. Nothing is reserved; a denial is recorded."""
        now = self._clock()
        decision = DecisionRecord(permit=False)
        try:
            admitted = self._admit(envelope, now)
            check_available(admitted.plan)
            dataset = self._store.dataset(admitted.mine.dataset)
            if dataset.data_version != admitted.mine.data_version:
                raise DeniedError(
                    "the dataset has another version now", hint="plan the job again", code="data-version"
                )
            bundle = await asyncio.to_thread(CodeBundle.from_bytes, bundle_bytes)
            if bundle.digest != admitted.plan.code:
                raise DeniedError("the code is not what the plan was signed for", code="code-mismatch")
            for action in admitted.plan.actions:
                decision = self._record.rehearse(admitted, self._facts(action, dataset, now))
                if not decision.permit:
                    raise refusal(decision)
        except KeyongError as error:
            receipt = await self._refuse_plan(envelope, decision, error, now)
            return JobOpened(permitted=False, code=error.code, receipt=receipt)
        self.jobs[admitted.digest] = Job(admitted, bundle, dataset, node_number)
        log.info("job-opened", plan=admitted.plan.id, requester=admitted.plan.requester, purpose=admitted.plan.purpose)
        return JobOpened(permitted=True)

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
        return {"action": action, "now": now, "accepted": self._store.accepted(), "columns": columns, "tier": "T2"}

    async def _refuse_plan(self, envelope: Envelope, decision: DecisionRecord, error: KeyongError, now: datetime) -> str:
        log.info("job-denied", plan=envelope.digest, code=error.code, reason=str(error))
        if isinstance(error, DeniedError) and not decision.rule:
            decision = denied_record(error, "")
        fields = {"plan": envelope.digest, "code": error.code, "decision": decision.model_dump(mode="json")}
        await self._record.write("denied", fields)
        try:
            plan = JobPlan.read(envelope)
            mine = plan.at(self._node)
        except KeyongError:
            return ""
        receipt = Receipt(
            issued=now,
            expires=now + RECEIPT_VALIDITY,
            node=self._node,
            plan=envelope.digest,
            invocation=envelope.digest,
            round=0,
            stage="open",
            intent=-1,
            outcome="denied",
            code=error.code,
            decision=decision,
            dataset=mine.dataset,
            code_digest=plan.code,
            runtime=plan.runtime,
            isolation=Isolation(),
            input=envelope.digest,
            protection=plan.protection,
            started=now,
            ended=now,
        )
        return pack(receipt.seal(self._key))

    # -- one step -----------------------------------------------------------------------------------------------------

    async def invoke(self, plan_digest: str, envelope: Envelope, content_header: bytes, body: memoryview) -> Outgoing:
        """Take one invocation down the line and answer with its receipt, whatever became of it."""
        job = self.jobs.get(plan_digest)
        if job is None:
            raise DeniedError("this node has no such job open", code="no-such-job")
        async with job.lock:
            answered = job.answers.get(envelope.digest)
            if answered is not None:
                return answered
            digest = await asyncio.to_thread(content_digest, content_header, [body])
            now = self._clock()
            step = admit_step(
                job.admitted, envelope, node=self._node, history=self._home.history, content=digest, now=now
            )
            # The agreement may have been revoked, or a clock run out, since the job was opened.
            self._agreement(job.admitted.agreement_digest)
            answer = await self._decide_and_run(job, step, content_header, body, now)
            job.answers = {envelope.digest: answer}
            return answer

    async def _decide_and_run(
        self, job: Job, step: AdmittedStep, content_header: bytes, body: memoryview, started: datetime
    ) -> Outgoing:
        facts = self._facts(step.invocation.action, job.dataset, started)
        try:
            job.admitted.agreement.check_time(started)
            intent = await self._record.intend(step, facts)
        except DeniedError as error:
            decision = denied_record(error, job.admitted.agreement_digest)
            return await self._outcome(job, step, Intent(-1, decision), started, "denied", error.code)
        try:
            done = await self._run(job, step, content_header, body)
        except asyncio.CancelledError:
            if job.session is not None:
                job.session.kill()
            await asyncio.shield(self._outcome(job, step, intent, started, "killed", "cancelled"))
            raise
        except DeniedError as error:
            log.info("output-refused", plan=job.admitted.plan.id, code=error.code, reason=str(error))
            return await self._outcome(job, step, intent, started, "denied", error.code)
        except KeyongError as error:
            log.warning("job-failed", plan=job.admitted.plan.id, code=error.code, reason=str(error))
            return await self._outcome(job, step, intent, started, "failed", error.code)
        except Exception as error:
            log.error("line-failed", plan=job.admitted.plan.id, error=type(error).__name__, exc_info=True)
            return await self._outcome(job, step, intent, started, "failed", "internal")
        return await self._outcome(job, step, intent, started, "ok", "", done)

    async def _run(self, job: Job, step: AdmittedStep, content_header: bytes, body: memoryview) -> Done:
        plan, stage = job.admitted.plan, step.invocation.stage
        try:
            sent = decode(content_header, body)
        except ContentError as error:
            raise UsageError("the broadcast content is malformed", code=error.code) from None
        if job.session is None:
            job.session = await self._open_session(job, step.invocation.action)
        session = job.session
        header = json.loads(content_header)
        reply = await session.call(stage, header, [body], float(plan.round_seconds))
        output = plan.outputs.of(stage)
        weight = session.snapshot.rows

        def judge() -> Done:
            gated = check_reply(reply, sent, output, plan.outputs.maximal_bytes)
            layout = Layout.derive(sent.arrays, output)
            protected = protect(gated, sent, plan, stage, weight, layout)
            if isinstance(protected, EncodedReply):
                buffers: list[Buffer] = list(protected.to_buffers())
                return Done(protected, buffers, "", protected.digest(), weight, gated.normalised, protected.saturated)
            text, views = encode(protected)
            return Done(protected, list(views), text.decode(), content_digest(text, views), weight, gated.normalised, 0)

        return await asyncio.to_thread(judge)

    async def _open_session(self, job: Job, action: str) -> JobSession:
        plan, dataset = job.admitted.plan, job.dataset
        folder = self._home.folder("sessions", plan.id.removeprefix("urn:uuid:"))
        if any(folder.iterdir()):
            remove_tree(folder)
            folder = self._home.folder("sessions", plan.id.removeprefix("urn:uuid:"))
        columns = tuple(Column.model_validate(item) for item in json.loads(dataset.columns))
        names = columns_for(job.admitted, action, tuple(column.name for column in columns))
        granted = tuple(column for column in columns if column.name in names)
        snapshot: Snapshot = await asyncio.to_thread(materialise_dataset, dataset, granted, folder / "data")
        request = SessionRequest(
            bundle=job.bundle,
            snapshot=snapshot,
            runtime=self._runtime,
            node_number=job.node_number,
            run_id=run_id_of(plan.id),
            run_config={key: json.loads(value) for key, value in plan.run_config.items()},
            memory_bytes=plan.memory_bytes,
            wall_seconds=float(plan.round_seconds) * (2 * plan.rounds + 2),
            body_limit=plan.outputs.maximal_bytes,
            logs=self._home.folder("logs", plan.id.removeprefix("urn:uuid:")),
        )
        return await JobSession.open(folder, request, self._spool)

    async def _outcome(
        self,
        job: Job,
        step: AdmittedStep,
        intent: Intent,
        started: datetime,
        outcome: str,
        code: str,
        done: Done | None = None,
    ) -> Outgoing:
        """Write OUTCOME, then and only then hand on what leaves."""
        plan, ended = job.admitted.plan, self._clock()
        session = job.session
        receipt = Receipt(
            issued=ended,
            expires=ended + RECEIPT_VALIDITY,
            node=self._node,
            plan=job.admitted.digest,
            invocation=step.envelope.digest,
            round=step.invocation.round,
            attempt=step.invocation.attempt,
            stage=step.invocation.stage,
            intent=intent.index,
            outcome=outcome,  # type: ignore[arg-type]
            code=code,
            decision=intent.decision,
            dataset=job.admitted.mine.dataset,
            data_version=job.admitted.mine.data_version,
            snapshot=session.snapshot.digest if session is not None else "",
            code_digest=plan.code,
            runtime=self._runtime.digest,
            isolation=session.isolation if session is not None else Isolation(),
            input=step.invocation.content,
            output=done.digest if done else "",
            output_bytes=sum(memoryview(part).nbytes for part in done.buffers) if done else 0,
            weight=done.weight if done else 0,
            saturated=done.saturated if done else 0,
            normalised=done.normalised if done else 0,
            protection=plan.protection,
            exception=UNPROTECTED if plan.protection == "fed:none" else "",
            started=started,
            ended=ended,
            cost=job.admitted.agreement.cost,
        )
        envelope = receipt.seal(self._key)
        appended = await self._record.settle(receipt, envelope)
        proof = await asyncio.to_thread(self._record.ledger.receipt_bundle, appended.index)
        header = Invoked(
            receipt=pack(envelope), proof=base64.b64encode(proof).decode(), reply=done.header if done else ""
        )
        return Outgoing(header.to_bytes(), done.buffers if done else ())

    # -- ending -------------------------------------------------------------------------------------------------------

    async def close_job(self, plan_digest: str) -> None:
        """End a job: session killed, snapshot removed, its output kept for the owner."""
        job = self.jobs.pop(plan_digest, None)
        if job is None:
            return
        if job.session is not None:
            job.session.kill()
        async with job.lock:
            if job.session is not None:
                await job.session.close()
                job.session = None

    async def revoke(self, agreement_digest: str) -> None:
        """End every job that rests on an agreement, at once."""
        for digest, job in list(self.jobs.items()):
            if job.admitted.agreement_digest == agreement_digest:
                await self.close_job(digest)

    async def close(self) -> None:
        """End all jobs."""
        for digest in list(self.jobs):
            await self.close_job(digest)


UNPROTECTED = "unprotected updates, permitted in words by the agreement: fed:protection fed:none"


def run_id_of(plan_id: str) -> int:
    """Flower's run id for a plan: 63 bits of its random id, the same at every party."""
    return int(plan_id.removeprefix("urn:uuid:").replace("-", "")[:16], 16) >> 1


def materialise_dataset(dataset: RegisteredDataset, columns: tuple[Column, ...], folder: Path) -> Snapshot:
    """Make the snapshot of a registered dataset with the granted columns."""
    reading = Reading.model_validate_json(dataset.reading)
    return materialise(Path(dataset.path), columns, dataset.fingerprint, folder, reading=reading)
