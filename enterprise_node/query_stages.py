"""The two stages of a query on the line: contributor flags, then the cells that enough companies contribute to.

    snapshot -> engine -> disclosure rules -> flags, masked            (flags)
    flags of all -> which cells open -> cells, masked, encrypted       (cells)

Both are one reading of one snapshot: the engine is asked once. What leaves is an element of Z_t under masks; the second is
encrypted under the asker's key besides, so that the coordinator sees no sum.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import structlog

from enterprise_node._folders import remove_tree
from enterprise_node._threads import in_thread
from enterprise_node.admission import AdmittedStep
from enterprise_node.materialise import materialise_apart
from enterprise_node.parked import Parked
from enterprise_node.query_rules import CONTEXT_FILE, described, granted_columns
from enterprise_node.query_session import LIFE_SECONDS, Encryption, Key, QuerySession
from enterprise_node.receipts import Done
from enterprise_node.rules import read_rules
from enterprise_node.session import SessionRequest
from federation.crypto import digest
from federation.errors import DeniedError
from federation.home import Home
from federation.jobs.codec import Content
from federation.query import (
    RING,
    CellRow,
    CellStatement,
    QueryVoidError,
    VectorLayout,
    categories_of,
    cell_statement,
    columns_of,
    contributes,
    distinct_statement,
    draw_noise,
    encode_cells,
    encode_noised,
    fill_slots,
    is_cut,
    is_undecided,
    loaded_columns,
    open_flags,
    opened,
    pack_parts,
    parts_statement,
    read_leaves,
    read_rows,
    seal_flags,
    stage_bits,
    tree_statement,
    with_parts,
)
from federation.query.flags import Elements
from federation.query.noised import Leaves
from federation.secagg import OUTCOME_BITS, SurvivorsError, add_masks, noise_shares, reply_digest
from federation.statements.query import QueryPlan
from federation.wire.body import Buffer
from sandbox import Runtime, Tier

if TYPE_CHECKING:
    from enterprise_node.job import Job
    from enterprise_node.materialise import Grant
    from enterprise_node.store import RegisteredDataset

    GrantOf = Callable[[Home, RegisteredDataset, Collection[str], str], Grant]

log = structlog.get_logger("keyong.node")

LEAST = 3
"""Companies in a cell that this node's owner accepted, whatever a plan says."""
FLAGS, RECORD, VECTOR = "flags", "query", "flags"
"""Stage, and the array in the second stage's content that holds the sum of the first."""


@dataclass
class QueryWork:
    """What a query has come to at this node; in memory alone, and gone with the job."""

    statement: CellStatement
    cells: list[CellRow | None] = field(default_factory=list)
    mine: list[bool] = field(default_factory=list)
    keys: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    leaves: dict[str, Leaves] = field(default_factory=dict)
    common: bytes = field(default=b"", repr=False)


class QueryStages:
    """Computes a query's stages; called between INTENT and OUTCOME alone."""

    def __init__(self, home: Home, runtime: Runtime, grant: GrantOf) -> None:
        self._home = home
        self._runtime = runtime
        self._grant = grant
        self._spool = home.folder("spool")
        self.parked = Parked()

    def parks(self, job: Job) -> bool:
        """Whether a job's session stays when the job ends as it should: nothing is at work in it."""
        return isinstance(job.session, QuerySession) and job.session.key is not None and not job.lock.locked()

    async def run(self, job: Job, step: AdmittedStep, sent: Content, tier: Tier) -> Done:
        """One stage.

        Raises:
            KeyongError: it failed; the code is one of a closed enumeration.
        """
        query, masks = job.admitted.plan.query, job.masks
        if query is None or masks is None:
            raise DeniedError("a query is answered masked alone", code="protection-unavailable")
        if step.invocation.stage == FLAGS:
            job.query = await self._evaluate(job, query, tier)
            job.query.common = masks.common
            found, named = job.query, job.admitted.digest
            vector = await asyncio.to_thread(lambda: self._mask(job, step, seal_flags(found.mine, found.common, named)))
            job.laps.lap("protection")
            return _done([vector.astype("<u8", copy=False).view(np.uint8).data], query, step)
        if job.query is None or not isinstance(job.session, QuerySession):
            raise DeniedError("the cells of a query come after its flags", code="query-order")
        work, plan = job.query, job.admitted.plan
        await job.session.encrypted()  # what is wrong with the asker's context shows before a cell is worked out
        shown = self._cells_to_open(job, query, work, sent)
        chosen = [own and open_ for own, open_ in zip(work.mine, shown, strict=True)]

        def vector_of() -> Elements:
            if query.noise is not None:
                noise = draw_noise(query, noise_shares(plan))
                return encode_noised(query, work.statement, work.cells, work.leaves, noise)
            sums = encode_cells(query, work.statement, work.cells, chosen, len(plan.cohort))
            for name, keys in work.keys.items():
                fill_slots(sums, query, name, keys, chosen, work.common, job.admitted.digest)
            return sums

        masked = await asyncio.to_thread(lambda: self._mask(job, step, vector_of()))
        encryption = job.session.encryption
        if encryption is None:
            raise DeniedError("there is no encryption for this query", code="protection-unavailable")
        parts = await encryption.encrypt(masked, float(plan.round_seconds))
        job.laps.lap("protection")
        return _done(pack_parts(parts), query, step)

    async def _evaluate(self, job: Job, query: QueryPlan, tier: Tier) -> QueryWork:
        about = described(job.dataset)
        columns = {column.name: column for column in about.columns}
        unit = about.privacy_unit if about.privacy_unit in columns else ""
        distinct = [one for one in query.measures if one.kind == "distinct"]
        if not isinstance(job.session, QuerySession):
            job.session = await self._open(job, query, tier)
        job.laps.lap("session")
        loaded = job.session.loaded
        beside = columns if loaded else {}
        work = QueryWork(cell_statement(query, columns, unit, loaded=loaded, bounded=True))
        trees = VectorLayout.of(query).trees
        statements = [work.statement.sql, *(distinct_statement(query, one.columns[0], beside) for one in distinct)]
        statements += [tree_statement(query, columns[name], beside) for name in trees]
        tables = await job.session.rows(statements, float(job.admitted.plan.round_seconds))
        job.laps.lap("sandbox")
        work.cells = read_rows(query, work.statement, tables[0])
        work.leaves = {name: read_leaves(query, tables.pop()) for name in reversed(trees)}
        for one, table in zip(distinct, tables[1:], strict=True):
            found: dict[int, list[str]] = {}
            own = categories_of(columns[one.columns[0]])
            for cell, key in table:
                if one.values is None or str(key) in own:  # others' values are theirs to count
                    found.setdefault(int(cell), []).append(str(key))
            work.keys[one.name] = found
        if is_undecided(query, [cell.evidence if cell is not None else None for cell in work.cells]):
            work.statement = cell_statement(query, columns, unit, loaded=loaded)
            (table,) = await job.session.rows([work.statement.sql], float(job.admitted.plan.round_seconds))
            work.cells = read_rows(query, work.statement, table)
        if is_cut(query, work.statement, work.cells):
            parts = parts_statement(query, columns, unit, loaded=loaded)
            (table,) = await job.session.rows([parts], float(job.admitted.plan.round_seconds))
            work.cells = with_parts(query, work.statement, work.cells, table)
        work.mine = contributes(query, [cell.evidence if cell is not None else None for cell in work.cells])
        job.laps.lap("gate")
        return work

    def _cells_to_open(self, job: Job, query: QueryPlan, work: QueryWork, sent: Content) -> list[bool]:
        """Which cells open, as all nodes find; raises unless each has enough companies that this node's owner accepted."""
        masks, admitted = job.masks, job.admitted
        assert masks is not None
        entities = list(masks.opened(FLAGS).members.values())
        try:
            total = np.asarray(sent.arrays[RECORD][VECTOR])
        except KeyError:
            raise QueryVoidError("the sum of the contributor flags is missing; the query is void") from None
        counts = open_flags(total, query.cells, work.common, admitted.digest, len(entities))
        # the requester's and the coordinator's own companies may be among the contributors of any cell
        outside = sum(entity in admitted.outside for entity in entities)
        counted = [max(count - outside, 0) for count in counts]
        shown = opened(counted, query.rules.contributors)
        strangers = masks.strangers(entities)
        if any(open_ and count - strangers < LEAST for open_, count in zip(shown, counted, strict=True)):
            raise SurvivorsError(
                "a cell might open over fewer than {least} companies that this node's owner accepted",
                code="min-participants",
                least=LEAST,
            )
        return shown

    def _mask(self, job: Job, step: AdmittedStep, vector: Elements) -> Elements:
        assert job.masks is not None
        keys = job.masks.keys(step.invocation)
        if len(keys) < 3:  # its own and those of two nodes in common: fewer hide nothing
            raise DeniedError("there are no masks for this vector", code="protection-unavailable")
        add_masks([(vector, RING)], keys)
        return vector

    async def _encryption(self, waiting: Encryption | None, context: bytes, tier: Tier, seconds: float) -> Encryption:
        """An encryption under this context: the one that waits, if it is live, else a new one."""
        encryption = waiting
        if encryption is None or not encryption.live:
            if encryption is not None:
                await encryption.close()
            encryption = await Encryption.start(self._runtime, tier, self._spool)
        try:
            await encryption.take(context, seconds)
        except BaseException:
            await encryption.close()
            raise
        return encryption

    async def _open(self, job: Job, query: QueryPlan, tier: Tier) -> QuerySession:
        plan, dataset = job.admitted.plan, job.dataset
        folder = self._home.folder("sessions", job.admitted.digest.removeprefix("sha256:"))
        names = set(columns_of(query)) & {column.name for column in granted_columns(job.admitted, dataset)}
        unit = described(dataset).privacy_unit
        if unit in dataset.shown_names:
            names |= {unit}  # the node's own: the plan cannot name it unless it is granted
        if not names:  # rows are counted; any one column says how many there are
            names = {dataset.shown_names[0]}
        seconds = float(plan.round_seconds) + plan.setup_seconds
        logs = self._home.folder("logs", plan.id.removeprefix("urn:uuid:"))
        key = Key(
            requester=plan.requester,
            agreement=job.admitted.agreement_digest,
            dataset=job.admitted.mine.dataset,
            description=digest(dataset.description),
            data_version=dataset.data_version,
            rules=read_rules(dataset.rules).digest,
            columns=tuple(sorted(names)),
            tier=str(tier),
            memory_bytes=plan.memory_bytes,
        )
        session = self.parked.take(key)
        kept, context = session.encryption if session is not None else None, job.bundle.files[CONTEXT_FILE]
        encrypting = asyncio.create_task(self._encryption(kept, context, tier, plan.setup_seconds))
        try:
            if session is not None:
                session.encryption, session.encrypting = None, encrypting
                session.log_to(logs)
                return session
            grant = self._grant(self._home, dataset, names, job.admitted.agreement_digest)
            snapshot = await materialise_apart(grant, folder / "data", seconds=seconds, log=log.bind(plan=plan.id))
            job.laps.lap("materialise")
            request = SessionRequest(
                bundle=job.bundle,
                snapshot=snapshot,
                runtime=self._runtime,
                tier=tier,
                node_number=job.number,
                run_id=0,
                run_config={},
                memory_bytes=plan.memory_bytes,
                wall_seconds=LIFE_SECONDS + 3 * seconds,
                setup_seconds=plan.setup_seconds,
                body_limit=plan.outputs.maximal_bytes,
                logs=logs,
            )
            beside = loaded_columns(one for one in described(dataset).columns if one.name in names)
            session = await QuerySession.start(folder, request, self._spool, beside)
            session.key = None if described(dataset).live else key
            session.encrypting = encrypting
            return session
        except BaseException:
            encrypting.cancel()
            (ended,) = await asyncio.gather(encrypting, return_exceptions=True)
            if isinstance(ended, Encryption):
                await ended.close()
            if session is not None:
                await session.close()
            await in_thread(functools.partial(remove_tree, folder))
            raise


def _done(buffers: Sequence[Buffer], query: QueryPlan, step: AdmittedStep) -> Done:
    bits = stage_bits(query, step.invocation.stage) + OUTCOME_BITS
    return Done(list(buffers), "", reply_digest(buffers), 0, 0, 0, bits)
