"""The stages of bilateral actions on the line: a score, or an intersection's blinded keys and then its size.

    snapshot -> engine -> moments -> noise -> [encrypted coefficients] -> sum, encrypted          (score)
    snapshot -> keys, blinded                                                                     (blind)
    the asker's answer to them -> size -> noise, floor, step -> sealed                            (size)

Noise is added here, in the trusted process, before anything meets what the asker sent or is told to it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog

from enterprise_node._folders import remove_tree
from enterprise_node._threads import in_thread
from enterprise_node.admission import AdmittedStep
from enterprise_node.bilateral_rules import CONTEXT_FILE, MODEL_FILE, ROTATIONS_FILE
from enterprise_node.bilateral_session import KeysSession, evaluated
from enterprise_node.group_size import check_group, counting
from enterprise_node.materialise import materialise_apart
from enterprise_node.query_rules import described
from enterprise_node.query_session import QuerySession
from enterprise_node.receipts import Done
from enterprise_node.session import JobSession, SessionRequest
from federation.bilateral import (
    BilateralVoidError,
    bilateral_stage_bits,
    check_keys,
    check_subjects,
    moment_statement,
    noised,
    padded,
    read_moments,
    scaled,
    seal,
    told,
)
from federation.crypto import digest
from federation.errors import DeniedError
from federation.home import Home, now
from federation.jobs.codec import Content
from federation.query import pack_parts
from federation.secagg import reply_digest
from federation.statements import Envelope
from federation.statements.bilateral import BlindAnswer, IntersectionPlan, ScorePlan
from federation.wire.body import Buffer
from sandbox import Runtime, Tier

if TYPE_CHECKING:
    from enterprise_node.job import Job
    from enterprise_node.materialise import Grant, Snapshot
    from enterprise_node.store import RegisteredDataset

    GrantOf = Callable[[Home, RegisteredDataset, Collection[str], str], Grant]

log = structlog.get_logger("keyong.node")
RECORD = "answer"
"""Where an asker's answer stands in a content: its signed word, its own keys, the node's two lists."""


class BilateralStages:
    """Computes the stages of bilateral actions; called between INTENT and OUTCOME alone."""

    def __init__(self, home: Home, runtime: Runtime, grant: GrantOf) -> None:
        self._home = home
        self._runtime = runtime
        self._grant = grant
        self._spool = home.folder("spool")

    async def run(self, job: Job, step: AdmittedStep, sent: Content, tier: Tier) -> Done:
        """One stage.

        Raises:
            KeyongError: it failed; the code is one of a closed enumeration.
        """
        plan, stage = job.admitted.plan, step.invocation.stage
        if plan.score is not None and stage == "score":
            buffers = await self._score(job, plan.score, tier)
        elif plan.intersection is not None and stage == "blind":
            buffers = await self._blind(job, plan.intersection, tier)
        elif plan.intersection is not None and stage == "size":
            buffers = await self._size(job, plan.intersection, sent)
        else:
            raise DeniedError("the plan has no such step", code="action-not-planned")
        return Done(buffers, "", reply_digest(buffers), 0, 0, 0, bilateral_stage_bits(stage))

    async def _score(self, job: Job, plan: ScorePlan, tier: Tier) -> list[Buffer]:
        unit = described(job.dataset).privacy_unit
        unit = unit if unit in job.dataset.shown_names else ""
        names = {one.column for one in plan.columns} | ({unit} if unit else set())
        session = await self._open(job, names, tier, QuerySession.start)
        assert isinstance(session, QuerySession)
        seconds = float(job.admitted.plan.round_seconds)
        (rows,) = await session.rows([moment_statement(plan, unit)], seconds)
        job.laps.lap("sandbox")
        found = read_moments(plan, rows)
        check_subjects(plan, found)
        moments = padded(plan, scaled(plan, await asyncio.to_thread(noised, plan, found)))
        job.laps.lap("gate")
        files = job.bundle.files
        context = (files[CONTEXT_FILE], files[ROTATIONS_FILE])
        parts = await evaluated(self._runtime, tier, context, files[MODEL_FILE], moments, self._spool, seconds)
        job.laps.lap("protection")
        return list(pack_parts(parts))

    async def _blind(self, job: Job, plan: IntersectionPlan, tier: Tier) -> list[Buffer]:
        session = await self._open(job, {plan.column}, tier, KeysSession.start)
        assert isinstance(session, KeysSession)
        lists = await session.blind(plan.column, float(job.admitted.plan.round_seconds))
        job.laps.lap("sandbox")
        buffers: list[Buffer] = list(pack_parts(lists))
        job.blinded = reply_digest(buffers)
        return buffers

    async def _size(self, job: Job, plan: IntersectionPlan, sent: Content) -> list[Buffer]:
        session = job.session
        if not isinstance(session, KeysSession) or not job.blinded:
            raise DeniedError("the size of an intersection comes after its blinded keys", code="bilateral-order")
        blinded, job.blinded = job.blinded, ""
        setup, responses = self._answer(job, sent, blinded)
        size, mine, theirs = await session.size(setup, responses, float(job.admitted.plan.round_seconds))
        job.laps.lap("sandbox")
        check_keys(plan, mine, theirs)
        sealed = seal(plan.box, job.admitted.digest, told(plan, size, mine, theirs))
        job.laps.lap("gate")
        return [sealed]

    def _answer(self, job: Job, sent: Content, blinded: str) -> tuple[memoryview, list[memoryview]]:
        """The asker's answer to these blinded keys, by its own signed word and no other's."""
        try:
            entries = sent.arrays[RECORD]
            parts = [
                memoryview(np.asarray(entries[name], dtype=np.uint8).tobytes())
                for name in ("statement", "setup", "first", "second")
            ]
        except (KeyError, TypeError, ValueError):
            raise BilateralVoidError("the asker's answer is missing") from None
        asker = self._home.public_key(job.admitted.plan.requester)
        said = BlindAnswer.open(Envelope.from_bytes(bytes(parts[0])), [asker], now())
        expected = (job.admitted.digest, blinded, digest(bytes(parts[1])), digest(b"".join(parts[2:])))
        if (said.plan, said.blinded, said.setup, said.response) != expected:
            raise BilateralVoidError("the asker's answer is to something else")
        return parts[1], parts[2:]

    async def _open(
        self,
        job: Job,
        names: Collection[str],
        tier: Tier,
        start: Callable[[Path, SessionRequest, Path], Awaitable[JobSession]],
    ) -> JobSession:
        """The session beside a fresh snapshot of these columns."""
        if job.session is not None:
            raise DeniedError("a bilateral action is asked once", code="bilateral-order")
        plan = job.admitted.plan
        folder = self._home.folder("sessions", job.admitted.digest.removeprefix("sha256:"))
        seconds = float(plan.round_seconds) + plan.setup_seconds
        try:
            grant = self._grant(self._home, job.dataset, names, job.admitted.agreement_digest)
            grant = counting(grant, job.admitted, job.dataset)
            snapshot = await materialise_apart(grant, folder / "data", seconds=seconds, log=log.bind(plan=plan.id))
            check_group(job.admitted, snapshot)
            job.laps.lap("materialise")
            job.session = await start(folder, self._request(job, snapshot, tier, seconds), self._spool)
        except BaseException:
            await in_thread(functools.partial(remove_tree, folder))
            raise
        job.laps.lap("session")
        return job.session

    def _request(self, job: Job, snapshot: Snapshot, tier: Tier, seconds: float) -> SessionRequest:
        plan = job.admitted.plan
        return SessionRequest(
            bundle=job.bundle,
            snapshot=snapshot,
            runtime=self._runtime,
            tier=tier,
            node_number=job.number,
            run_id=0,
            run_config={},
            memory_bytes=plan.memory_bytes,
            wall_seconds=3 * seconds,
            setup_seconds=plan.setup_seconds,
            body_limit=plan.outputs.maximal_bytes,
            logs=self._home.folder("logs", plan.id.removeprefix("urn:uuid:")),
        )
