"""The node as a process: one link outward, the line behind it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog

from enterprise_node._folders import remove_tree
from enterprise_node._threads import until_done
from enterprise_node.acceptance import Acceptances
from enterprise_node.acknowledgements import Acknowledgements
from enterprise_node.attestation import Attestation
from enterprise_node.broadcast import broadcast_of
from enterprise_node.dataspace import descriptions
from enterprise_node.line import Line
from enterprise_node.mask_desk import MaskDesk
from enterprise_node.metrics import NodeMetrics
from enterprise_node.proving import ReceiptProver
from enterprise_node.record import Record
from enterprise_node.standing import Standing
from enterprise_node.store import NodeStore
from federation.correspondence import uphold_revocations
from federation.dataspace import DataspaceStore
from federation.errors import KeyongError, UnavailableError, UsageError
from federation.holdings import Holdings, open_engine
from federation.home import Home, now
from federation.ledger import LedgerError
from federation.observability import Observer
from federation.statements import Envelope, Invocation, JobPlan
from federation.wire.dataspace import DataspaceDesk
from federation.wire.dial import REDIAL_SECONDS, keep_attached
from federation.wire.member import connect, fetch_rosters, greet, learn, read_mail
from federation.wire.messages import Empty, Envelopes, Invoke, JobClose, JobOpen, Publish, pack, unpack
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming, Outgoing, Peer
from federation.wire.protocol import MASKS, ProtocolVersionError
from sandbox import Runtime, Tier, clear_leftovers, end_orphans, prove_tier

log = structlog.get_logger("keyong.node")

HAND_OVER_SECONDS = 2.0
"""At least so long an answer that is on its way may take, also where the time to drain is over."""
LENT_TO_SESSIONS = frozenset({"job.invoke"})
"""Requests whose bodies go on into a session."""
TEND_SECONDS = 1.0
"""How soon a change that another process of this home made takes effect: a revocation, a dataset."""


class NodeService:
    """Serves one company's datasets.

    Args:
        home: the company's, whose ledger it writes.
        runtime: what job code runs on.
        observe: where it answers for its figures.
        waiting: workers kept in waiting.
        development: isolate nothing (T0), for jobs on made-up data alone; the owner must have accepted T0.

    Start-up order matters: open steps of a crash are closed and leftovers removed, the canary must find the sandbox
    tight, and only then is the link dialled.
    """

    def __init__(
        self,
        home: Home,
        runtime: Runtime,
        observe: tuple[str, int] | None = None,
        *,
        waiting: int = 0,
        development: bool = False,
    ) -> None:
        self._home = home
        self._development = development
        self._runtime = runtime
        self._claim = home.claim("node")  # before recovery: another process's open steps are not ours to close
        self._engine = open_engine(home.path / "store.db")
        self._store = NodeStore(self._engine)
        self._holdings = Holdings(self._engine)
        self._record = Record(home.open_ledger())
        if home.openings_lost:  # before any sum is opened
            self._record.carry_openings(None, [row.data_version for row in self._store.datasets()])
            home.mark_openings_lost(False)
        acceptances = Acceptances(home, self._store)
        acceptances.bind(self._record.ledger)
        self.metrics = NodeMetrics()
        self.line = Line(home, self._record, self._store, self._holdings, runtime, now, self.metrics, waiting)
        self._masks = MaskDesk(home, self.line)
        self._withdrawals: asyncio.Queue[Envelope] = asyncio.Queue()
        self.line.on_withdrawal = self._withdrawals.put_nowait
        self._standing = Standing(home, self._record, self._store, self._holdings, self.line, self.metrics)
        self._observer = Observer(home.path, "node", observe)
        self._attestation = Attestation(home, self._record.ledger, acceptances, self.line.times)
        self._dataspace = DataspaceDesk(
            home,
            self._holdings,
            self._record.ledger,
            DataspaceStore(self._engine),
            self.line.uphold,
            lambda: descriptions(self._store),
        )
        self._mail = asyncio.Event()
        self._peer: Peer | None = None
        self._methods: dict[str, Callable[[Peer, Incoming], Awaitable[Outgoing]]] = {
            "job.open": self._job_open,
            "job.invoke": self._job_invoke,
            "job.close": self._job_close,
            "mail.push": self._mail_push,
            "roster.push": self._roster_push,
            **self._masks.methods,
            "witness.add": self._attestation.add,
            "witness.last": self._attestation.last,
            "receipts.prove": ReceiptProver(self._record.ledger).prove,
            "job.acknowledged": Acknowledgements(home, self._record).take,
            "dataspace.ask": self._dataspace.answer,
        }

    async def run(self, on_state: Callable[[str], None]) -> None:
        """Serve until cancelled. ``on_state`` hears ``ready`` once, with the port that is observed, then ``attached`` or
        ``detached``
        with the reason.

        However it ends, steps that run settle as killed, sessions and snapshots go, and the ledger is closed last.
        """

        def down(error: KeyongError) -> None:
            self._standing.detached(error.code)
            on_state(f"detached {error}")

        try:
            await self._start()
            async with self._observer.serving(self._standing, self.line.uphold, self.line.strike) as port:
                on_state(f"ready {port}" if port else "ready")
                tending = asyncio.create_task(self._tend())
                filling = asyncio.create_task(self._fill())
                linked = asyncio.create_task(
                    keep_attached(
                        lambda: self._connect(),
                        lambda peer: self._serve(peer, on_state),
                        on_down=down,
                        jitter=random.Random(),  # noqa: S311  # spreads reconnects; nothing secret
                    )
                )
                await _first_of((tending, filling, linked))
        finally:
            ending = asyncio.create_task(self._stop())
            await until_done(ending)
            ending.result()

    async def drain(self, seconds: float) -> None:
        """Take no further step, give those that run ``seconds`` to end by themselves, and hand over their answers."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        self._standing.draining = True
        log.info("draining", seconds=seconds)
        await self.line.drain(seconds)
        if self._peer is not None:
            await self._peer.handed_over(max(HAND_OVER_SECONDS, end - clock()))

    async def _start(self) -> None:
        await asyncio.to_thread(self.line.tidy)
        closed = await self.line.close_open_steps()
        if closed:
            log.warning("closed-open-intents", count=closed)
        ended = await asyncio.to_thread(uphold_revocations, self._holdings, self._record.ledger)
        if ended:
            log.warning("revocations-upheld", count=ended)
        await asyncio.to_thread(end_orphans)
        for place in await asyncio.to_thread(clear_leftovers):
            log.error("session-files-left", path=place)
        for leftover in self._home.folder("sessions").iterdir():
            await asyncio.to_thread(remove_tree, leftover)
        floor = Tier(self._home.tier_floor)
        tier = await asyncio.to_thread(prove_tier, floor, development=self._development)
        self.line.isolate_at(tier)
        self._standing.isolated_at(str(tier))
        if tier < Tier.T2:
            log.warning("isolation", tier=str(tier), accepted=True)
        await self._record.write("node", {"event": "started", "runtime": self._runtime.digest, "tier": str(tier)})

    async def _stop(self) -> None:
        try:
            await self.line.close()
            await self._record.write("node", {"event": "stopped"})
        except (UnavailableError, LedgerError) as error:
            log.error("stop-not-recorded", code=error.code)
        finally:
            await asyncio.to_thread(self._record.ledger.close)
            self._engine.dispose()
            self._claim.release()

    def _connect(self) -> AbstractAsyncContextManager[Peer]:
        meter = self.metrics.meter
        return connect(self._home, self._handle, timeout=REDIAL_SECONDS, meter=meter, lent=LENT_TO_SESSIONS)

    async def _serve(self, peer: Peer, on_state: Callable[[str], None]) -> None:
        await greet(peer, self._home, self._record.ledger, serves="node", times=self.line.times)
        stamp = await asyncio.to_thread(self._stamp)  # before publishing: a change in between is published again
        await self.publish(peer)
        self._mail.set()  # what came while we were away
        self._peer = peer
        self._standing.attached()
        on_state("attached")
        pushed = asyncio.create_task(self._read_mail_when_told(peer))
        watched = asyncio.create_task(self._publish_changes(peer, stamp))
        attested = asyncio.create_task(self._attestation.run(peer))
        over = asyncio.create_task(peer.ended())
        told = asyncio.create_task(self._tell_withdrawals(peer))
        negotiated = asyncio.create_task(self._dataspace.run(peer))
        timed = asyncio.create_task(self._watch_clock())
        tasks: tuple[asyncio.Task[Any], ...] = (pushed, watched, attested, over, told, negotiated, timed)
        try:
            await _first_of(tasks)
        finally:
            self._peer = None
            self._standing.detached("link-lost")

    async def _watch_clock(self) -> None:
        # A clock that jumped ends the link; the greeting of the next one compares it anew.
        while True:
            self.line.times.check()
            await asyncio.sleep(TEND_SECONDS)

    async def _publish_changes(self, peer: Peer, stamp: tuple[object, ...]) -> None:
        # What an owner's command changed in the store is noticed here.
        while True:
            await asyncio.sleep(TEND_SECONDS)
            if (current := await asyncio.to_thread(self._stamp)) != stamp:
                stamp = current
                await self.publish(peer)

    async def _tell_withdrawals(self, peer: Peer) -> None:
        while True:
            withdrawal = await self._withdrawals.get()
            header = Envelopes(envelopes=(pack(withdrawal),)).to_bytes()
            try:
                await peer.call("mask.withdraw", header, timeout=ANSWER_SECONDS)
            except (
                KeyongError
            ) as error:  # the round is over, or the vector counts as vanished: it is not opened by this node
                log.info("withdrawal-not-taken", code=error.code)

    def _stamp(self) -> tuple[object, ...]:
        return tuple((row.id, row.data_version, row.description) for row in self._store.datasets())

    async def _read_mail_when_told(self, peer: Peer) -> None:
        # One reader, however often it is told: pushes cannot pile up.
        while True:
            await self._mail.wait()
            self._mail.clear()
            await read_mail(peer, self._home, self._holdings, self._record.ledger)
            await self.line.uphold()  # the other side's notice ends jobs as fast as the owner's own
            await self.line.sweep()

    async def _tend(self) -> None:
        # Attached or not: a revocation by the owner's own command ends jobs within this time.
        while True:
            await asyncio.sleep(TEND_SECONDS)
            try:
                await self.line.sweep()
            except UnavailableError as error:
                log.warning("sweep-put-off", code=error.code)

    async def _fill(self) -> None:
        while True:
            await self.line.fill()
            await asyncio.sleep(TEND_SECONDS)

    async def publish(self, peer: Peer) -> None:
        """Tell the coordinator what this node offers."""
        entries = tuple(pack(Envelope.from_bytes(row.description)) for row in self._store.datasets())
        await peer.call(
            "catalog.publish",
            Publish(datasets=entries, runtime=self._runtime.digest).to_bytes(),
            timeout=ANSWER_SECONDS,
        )

    async def _handle(self, peer: Peer, message: Incoming) -> Outgoing:
        method = self._methods.get(message.method)
        if method is None:
            raise UsageError(
                "this node does not know the method {method}", code="no-such-method", method=message.method[:40]
            )
        return await method(peer, message)

    async def _job_open(self, peer: Peer, message: Incoming) -> Outgoing:
        request = JobOpen.from_bytes(message.header)
        envelope = unpack(request.plan)
        if peer.version < MASKS and JobPlan.read(envelope).protection != "fed:none":
            raise ProtocolVersionError(
                "the plan asks for masks, which the coordinator does not speak",
                hint="upgrade the coordinator",
            )
        if not self._knows(JobPlan.read(envelope).roster):
            await fetch_rosters(peer, self._home, self._record.ledger)
        opened = await self.line.open_job(envelope, message.body)
        return Outgoing(opened.to_bytes())

    def _knows(self, roster: str) -> bool:
        return any(envelope.digest == roster for envelope in self._home.history.envelopes)

    async def _job_invoke(self, peer: Peer, message: Incoming) -> Outgoing:
        request = Invoke.from_bytes(message.header)
        envelope = unpack(request.invocation)
        plan = Invocation.read(envelope).plan
        if request.boxes:
            await self._masks.receive(plan, request.boxes)
        sent = await broadcast_of(self.line.jobs.get(plan), request, message)
        return await self.line.invoke(
            plan, envelope, sent.header, sent.body, lost=lambda: peer.over, content=sent.digest
        )

    async def _job_close(self, peer: Peer, message: Incoming) -> Outgoing:
        await self.line.close_job(JobClose.from_bytes(message.header).plan)
        return Outgoing(Empty().to_bytes())

    async def _mail_push(self, peer: Peer, message: Incoming) -> Outgoing:
        self._mail.set()
        return Outgoing(Empty().to_bytes())

    async def _roster_push(self, peer: Peer, message: Incoming) -> Outgoing:
        await asyncio.to_thread(learn, self._home, self._record.ledger, Envelopes.from_bytes(message.header).envelopes)
        await self.line.sweep()
        return Outgoing(Empty().to_bytes())


async def _first_of(tasks: tuple[asyncio.Task[Any], ...]) -> None:
    """Wait for the first of some tasks to end, give up the others, and raise what it raised."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
