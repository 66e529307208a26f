"""The stages between INTENT and OUTCOME: materialise, sandbox, output gate, protection, each a module of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Collection

import structlog

from enterprise_node._folders import remove_tree
from enterprise_node._threads import in_thread
from enterprise_node.admission import AdmittedStep
from enterprise_node.bilateral_stages import BilateralStages
from enterprise_node.datasets import data_secret
from enterprise_node.decision import columns_for
from enterprise_node.group_size import check_group, counting
from enterprise_node.job import CLOSED, Job
from enterprise_node.materialise import Grant, materialise_apart
from enterprise_node.output_gate import check_reply
from enterprise_node.output_summary import summarise
from enterprise_node.protection import protect
from enterprise_node.query_session import QuerySession
from enterprise_node.query_stages import QueryStages
from enterprise_node.reading import Reading
from enterprise_node.receipts import Done
from enterprise_node.rules import Kept, read_rules
from enterprise_node.session import JobSession, SessionRequest
from enterprise_node.store import RegisteredDataset
from enterprise_node.workers import Workers
from federation.bilateral import bilateral_stage_bits
from federation.errors import UsageError
from federation.home import Home
from federation.jobs.codec import Content, ContentError, content_digest, decode, encode
from federation.query import stage_bits
from federation.secagg import (
    OUTCOME_BITS,
    EncodedReply,
    EncodingError,
    Layout,
    expected_arrays,
    step_bits,
    step_micro_rho,
)
from federation.statements import JobPlan, StageOutput
from federation.statements.plan import Stage
from federation.wire.body import Buffer
from federation.wire.offload import offload
from sandbox import Runtime, Tier

log = structlog.get_logger("keyong.node")

REPLY_ROOM_BYTES = 2**20
METRIC_TEXT_BYTES = 32
"""Longest that one metric's figure is as text: a float64 takes 24 characters, an integer of the widest declarable range
31."""


class Stages:
    """Computes steps; knows neither permits nor records, and is called only between the two."""

    def __init__(self, home: Home, runtime: Runtime, waiting: int = 0) -> None:
        self._home = home
        self._runtime = runtime
        self._spool = home.folder("spool")
        self.tier = Tier.T2
        self.workers = Workers(home.folder("sessions"), runtime, waiting)
        self.queries = QueryStages(home, runtime, grant_of)
        self._bilateral = BilateralStages(home, runtime, grant_of)

    async def run(
        self, job: Job, step: AdmittedStep, content_header: bytes, body: memoryview, read: Content | None = None
    ) -> Done:
        """Run one step; the job's session is opened, on a fresh snapshot, with its first.

        Args:
            read: the content, where it was read before.

        Raises:
            DeniedError: what the app replied may not leave.
            KeyongError: it failed; the code is one of a closed enumeration.
        """
        plan, stage = job.admitted.plan, step.invocation.stage
        sent = read if read is not None else await offload(len(body), _decoded, content_header, body)
        if plan.query is not None:
            return await self.queries.run(job, step, sent, self.tier)
        if plan.bilateral is not None:
            return await self._bilateral.run(job, step, sent, self.tier)
        if job.session is None:
            job.session = await self._open_session(job)
            job.laps.lap("session")
        session = job.session
        header = json.loads(content_header)
        output = plan.outputs.of(stage)
        limit = min(plan.outputs.maximal_bytes, most_bytes_of(sent, output))
        reply = await session.call(stage, header, [body], float(plan.round_seconds), limit)
        job.laps.lap("sandbox")
        weight = session.snapshot.rows

        def judge() -> Done:
            gated = check_reply(reply, sent, output, plan.outputs.maximal_bytes)
            reviewed = job.admitted.demands(step.invocation.action).review
            job.laps.lap("gate")
            layout = Layout.derive(sent.arrays, output)
            masks = job.masks.keys(step.invocation) if job.masks is not None else ()
            protected = protect(gated, sent, plan, stage, weight, layout, masks)
            job.laps.lap("protection")
            bits = step_bits(plan, layout)
            if isinstance(protected, EncodedReply):
                header, buffers, saturated = "", list[Buffer](protected.to_buffers()), protected.saturated
                output_digest, padding = protected.digest(), 0
            else:
                text, views = encode(protected)
                header, buffers, saturated = text.decode(), list[Buffer](views), 0
                output_digest = content_digest(text, views)
                padding = padding_of(protected) if plan.slot_seconds else 0
            summary = summarise(gated, sent.arrays, layout, saturated, bits, weight) if reviewed else None
            shown = (
                0 if masks else weight if plan.encoding.noise is None else 1
            )  # what is under the masks is said nowhere else
            return Done(buffers, header, output_digest, shown, gated.normalised, saturated, bits, padding, summary)

        return await offload(len(body) + _bytes(reply), judge)

    async def end(self, job: Job) -> None:
        """End a job's session, where it has one; that of a query which ended by itself may wait for the next."""
        session, job.session = job.session, None
        if isinstance(session, QuerySession) and job.reason == CLOSED:
            await self.queries.parked.park(session)
        elif session is not None:
            await session.close()

    async def _open_session(self, job: Job) -> JobSession:
        plan, dataset = job.admitted.plan, job.dataset
        # By digest: a requester may give two plans one id, and neither may touch the other's snapshot.
        folder = self._home.folder("sessions", job.admitted.digest.removeprefix("sha256:"))
        # One snapshot serves all steps: it holds what every action of the plan may see.
        every = dataset.shown_names
        shown = [frozenset(columns_for(job.admitted, action, every)) for action in plan.actions]
        granted = frozenset(name for name in every if all(name in names for names in shown))
        try:
            grant = grant_of(self._home, dataset, granted, job.admitted.agreement_digest)
            grant = counting(grant, job.admitted, dataset)
            # A start may take as long as a round, and what its plan gives it beside that.
            seconds = float(plan.round_seconds) + plan.setup_seconds
            snapshot = await materialise_apart(grant, folder / "data", seconds=seconds, log=log.bind(plan=plan.id))
            check_group(job.admitted, snapshot)
            job.laps.lap("materialise")
            request = SessionRequest(
                bundle=job.bundle,
                snapshot=snapshot,
                runtime=self._runtime,
                tier=self.tier,
                node_number=job.number,
                run_id=run_id_of(plan.id),
                run_config={key: json.loads(value) for key, value in plan.run_config.items()},
                memory_bytes=plan.memory_bytes,
                wall_seconds=(plan.round_seconds + plan.pause_seconds) * (2 * plan.rounds + 2) + plan.setup_seconds,
                setup_seconds=plan.setup_seconds,
                body_limit=plan.outputs.maximal_bytes,
                logs=self._home.folder("logs", plan.id.removeprefix("urn:uuid:")),
                worker=self.workers.take(self.tier),
            )
            return await JobSession.open(folder, request, self._spool)
        except BaseException:
            await in_thread(lambda: remove_tree(folder))
            raise


def _decoded(header: bytes, body: memoryview) -> Content:
    try:
        return decode(header, body)
    except ContentError as error:
        raise UsageError("the broadcast content is malformed", code=error.code) from None


def most_bytes_of(sent: Content, output: StageOutput) -> int:
    """The longest body that a reply of this stage can have: every element in the widest type, and some room for the gate
    to see what is wrong with a small one. More is not taken from the session, let alone kept on the owner's disk."""
    elements = sum(math.prod(shape) for _, shape, _ in expected_arrays(sent.arrays, output).values())
    return 8 * elements + REPLY_ROOM_BYTES


def bits_of(plan: JobPlan, stage: Stage, sent: Content | None) -> int:
    """Bits that the answer to this content may carry out; those of an outcome where it is no content."""
    if sent is None:
        return OUTCOME_BITS
    if plan.query is not None:
        return stage_bits(plan.query, stage) + OUTCOME_BITS
    if plan.bilateral is not None:
        return bilateral_stage_bits(stage)
    try:
        return step_bits(plan, Layout.derive(sent.arrays, plan.outputs.of(stage)))
    except EncodingError:
        return OUTCOME_BITS  # it will fail for that reason, and nothing but the outcome leaves


def cost_of(plan: JobPlan, stage: Stage, sent: Content | None) -> int:
    """Micro-rho of the answer to this content under the plan's noise; 0 where it is no content, and nothing will leave."""
    if plan.bilateral is not None:
        return (
            plan.micro_rho if stage in ("score", "size") else 0
        )  # a node's blinded keys say how many they are, no more
    if plan.query is not None:
        return plan.micro_rho if stage == "cells" else 0  # under noise no flag depends on a row
    if sent is None or plan.encoding.noise is None:
        return 0
    try:
        return step_micro_rho(plan, Layout.derive(sent.arrays, plan.outputs.of(stage)))
    except EncodingError:
        return 0  # it will fail for that reason


def padding_of(reply: Content) -> int:
    """What the figures in a reply's header are short of the widest: with it all replies of a stage have one length."""
    figures = [json.dumps(value) for values in reply.metrics.values() for value in values.values()]
    return sum(METRIC_TEXT_BYTES - len(text) for text in figures)


def _bytes(content: Content) -> int:
    return sum(array.nbytes for record in content.arrays.values() for array in record.values())


def run_id_of(plan_id: str) -> int:
    """Flower's run id for a plan: 63 bits of its random id, the same at every party."""
    return int(plan_id.removeprefix("urn:uuid:").replace("-", "")[:16], 16) >> 1


def grant_of(home: Home, dataset: RegisteredDataset, names: Collection[str], agreement: str) -> Grant:
    """What a snapshot of a registered dataset is made of, with the columns of these names."""
    columns = tuple(column for column in dataset.source_columns if column.name in names)
    kept = Kept(home.path, dataset.id)
    reading = Reading.from_json(dataset.reading)
    unit, unit_rows = dataset.privacy_unit or ("", 0)
    rules = read_rules(dataset.rules)
    secret = data_secret(home)
    return Grant(dataset.path, reading, dataset.fingerprint, columns, rules, kept, agreement, unit, unit_rows, secret)
