"""The stages between INTENT and OUTCOME: materialise, sandbox, output gate, protection, each a module of its own."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

from enterprise_node._folders import remove_tree
from enterprise_node._threads import in_thread
from enterprise_node.admission import AdmittedStep
from enterprise_node.decision import columns_for
from enterprise_node.job import Job
from enterprise_node.materialise import Snapshot, materialise
from enterprise_node.output_gate import check_reply
from enterprise_node.protection import protect
from enterprise_node.receipts import Done
from enterprise_node.session import JobSession, SessionRequest
from enterprise_node.source_file import Reading
from enterprise_node.store import RegisteredDataset
from enterprise_node.workers import Workers
from federation.errors import UsageError
from federation.home import Home
from federation.jobs.codec import Content, ContentError, content_digest, decode, encode
from federation.secagg import EncodedReply, Layout, expected_arrays
from federation.statements import Column, StageOutput
from federation.wire.body import Buffer
from sandbox import Runtime, Tier

REPLY_ROOM_BYTES = 2**20


class Stages:
    """Computes steps; knows neither permits nor records, and is called only between the two."""

    def __init__(self, home: Home, runtime: Runtime, waiting: int = 0) -> None:
        self._home = home
        self._runtime = runtime
        self._spool = home.folder("spool")
        self.tier = Tier.T2
        self.workers = Workers(home.folder("sessions"), runtime, waiting)

    async def run(self, job: Job, step: AdmittedStep, content_header: bytes, body: memoryview) -> Done:
        """Run one step; the job's session is opened, on a fresh snapshot, with its first.

        Raises:
            DeniedError: what the app replied may not leave.
            KeyongError: it failed; the code is one of a closed enumeration.
        """
        plan, stage = job.admitted.plan, step.invocation.stage
        try:
            sent = await asyncio.to_thread(decode, content_header, body)
        except ContentError as error:
            raise UsageError("the broadcast content is malformed", code=error.code) from None
        if job.session is None:
            job.session = await self._open_session(job)
            job.laps.lap("session")
        session = job.session
        header = json.loads(content_header)
        output = plan.outputs.of(stage)
        limit = min(plan.outputs.maximal_bytes, _most_bytes(sent, output))
        reply = await session.call(stage, header, [body], float(plan.round_seconds), limit)
        job.laps.lap("sandbox")
        weight = session.snapshot.rows

        def judge() -> Done:
            gated = check_reply(reply, sent, output, plan.outputs.maximal_bytes)
            job.laps.lap("gate")
            layout = Layout.derive(sent.arrays, output)
            protected = protect(gated, sent, plan, stage, weight, layout)
            job.laps.lap("protection")
            if isinstance(protected, EncodedReply):
                buffers: list[Buffer] = list(protected.to_buffers())
                return Done(protected, buffers, "", protected.digest(), weight, gated.normalised, protected.saturated)
            text, views = encode(protected)
            return Done(protected, list(views), text.decode(), content_digest(text, views), weight, gated.normalised, 0)

        return await asyncio.to_thread(judge)

    async def _open_session(self, job: Job) -> JobSession:
        plan, dataset = job.admitted.plan, job.dataset
        # By digest: a requester may give two plans one id, and neither may touch the other's snapshot.
        folder = self._home.folder("sessions", job.admitted.digest.removeprefix("sha256:"))
        columns = tuple(Column.model_validate(item) for item in json.loads(dataset.columns))
        # One snapshot serves all steps: it holds what every action of the plan may see.
        every = tuple(column.name for column in columns)
        shown = [frozenset(columns_for(job.admitted, action, every)) for action in plan.actions]
        granted = tuple(column for column in columns if all(column.name in names for names in shown))
        try:
            snapshot = await in_thread(lambda: materialise_dataset(dataset, granted, folder / "data"), Snapshot.discard)
            job.laps.lap("materialise")
            request = SessionRequest(
                bundle=job.bundle,
                snapshot=snapshot,
                runtime=self._runtime,
                tier=self.tier,
                node_number=job.node_number,
                run_id=run_id_of(plan.id),
                run_config={key: json.loads(value) for key, value in plan.run_config.items()},
                memory_bytes=plan.memory_bytes,
                wall_seconds=float(plan.round_seconds) * (2 * plan.rounds + 2) + plan.setup_seconds,
                setup_seconds=plan.setup_seconds,
                body_limit=plan.outputs.maximal_bytes,
                logs=self._home.folder("logs", plan.id.removeprefix("urn:uuid:")),
                worker=self.workers.take(self.tier),
            )
            return await JobSession.open(folder, request, self._spool)
        except BaseException:
            await in_thread(lambda: remove_tree(folder))
            raise


def _most_bytes(sent: Content, output: StageOutput) -> int:
    """The longest body that a reply of this stage can have: every element in the widest type, and some room for the gate
    to see what is wrong with a small one. More is not taken from the session, let alone kept on the owner's disk."""
    elements = sum(math.prod(shape) for _, shape, _ in expected_arrays(sent.arrays, output).values())
    return 8 * elements + REPLY_ROOM_BYTES


def run_id_of(plan_id: str) -> int:
    """Flower's run id for a plan: 63 bits of its random id, the same at every party."""
    return int(plan_id.removeprefix("urn:uuid:").replace("-", "")[:16], 16) >> 1


def materialise_dataset(dataset: RegisteredDataset, columns: tuple[Column, ...], folder: Path) -> Snapshot:
    """Make the snapshot of a registered dataset with the granted columns."""
    reading = Reading.model_validate_json(dataset.reading)
    return materialise(Path(dataset.path), columns, dataset.fingerprint, folder, reading=reading)
